"""The program, with a socket as from systemd."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.listening import listen

ROOT = Path(__file__).parents[3]


@contextmanager
def program(folder: Path, listener: socket.socket, name: str) -> Iterator[subprocess.Popen[str]]:
    """rbee-gateway of a user whose folders are in `folder`."""
    line = f'exec 3<&{listener.fileno()}; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" -m rbee.gateway --user'
    environ = {
        "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder), "PYTHONPATH": str(ROOT), "LISTEN_FDNAMES": name,
        "NOTIFY_SOCKET": str(folder / "notify"),
    }  # fmt: skip
    process = subprocess.Popen(
        ["bash", "-c", line, sys.executable],
        env=environ, pass_fds=[listener.fileno()], stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    with process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def notified(folder: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(folder / "notify"))
        notify.settimeout(20)
        yield notify


class Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("rbee", timeout=20)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        self.sock.connect(str(self._path))


def test_it_answers_is_ready_and_stops(tmp_path: Path) -> None:
    path = tmp_path / "openai.sock"
    with (
        notified(tmp_path) as notify,
        listen(path) as listener,
        program(tmp_path, listener, "gateway") as process,
    ):
        assert notify.recv(4096).startswith(b"READY=1\nSTATUS=requests: 0 in flight")
        connection = Connection(path)
        connection.request("GET", "/health")
        assert json.load(connection.getresponse())["status"] == "ok"
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def test_a_socket_that_it_must_not_serve_is_a_wrong_configuration(tmp_path: Path) -> None:
    with socket.create_server(("0.0.0.0", 0)) as listener, notified(tmp_path) as notify:
        with program(tmp_path, listener, "gateway-tcp") as process:
            assert process.wait(20) == os.EX_CONFIG
        assert b"listens on 0.0.0.0 without TLS" in notify.recv(4096)
