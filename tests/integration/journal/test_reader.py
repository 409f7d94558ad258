"""The door's client and the door, over a real socket; the service and the journal are tried in machines."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import rbee.journal.reader
from rbee.errors import BadInput, Disconnected, NotRunning, TimedOut
from rbee.journal import door
from rbee.journal.reader import Outputs, ask_door, is_readable, tail
from rbee.scope import SYSTEM, Scope
from rbee.wire.logs import LogQuery

Serve = Callable[[socket.socket], object]


@contextmanager
def a_door(folder: Path, serve: Serve) -> Iterator[Scope]:
    """`serve` has each connection, one after the other."""
    scope = SYSTEM._replace(runtime=folder)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(scope.logs_socket))
        listener.listen()

        def accept() -> None:
            while True:
                try:
                    channel, _ = listener.accept()
                except OSError:
                    return
                with channel:
                    serve(channel)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield scope
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)


def real(channel: socket.socket) -> None:
    door.serve(channel, SYSTEM)


@pytest.fixture
def journalctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A command of that name, which prints its arguments and does what the file beside it says."""
    script = tmp_path / "bin" / "journalctl"
    script.parent.mkdir()
    script.write_text('#!/bin/sh\necho "$SYSTEMD_COLORS $*"\necho trouble >&2\n. "$0.then"\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    return script.with_name("journalctl.then")


def test_journalctl_writes_to_the_descriptors_of_who_asks(journalctl: Path, tmp_path: Path) -> None:
    journalctl.write_text("exit 3\n")
    out, err = (os.memfd_create(name) for name in ("out", "err"))

    with a_door(tmp_path, real) as scope:
        status = ask_door(LogQuery(worker="bee-1", options=("-n", "2")), Outputs(out, err), scope)
        dim = ask_door(LogQuery(hive="blade", has_colour=True), Outputs(out, err), scope)

    assert (status, dim) == (3, 3)
    lines = os.pread(out, 9999, 0).decode().splitlines()
    assert lines[0] == "false -n2 --unit rbee-worker@bee-1.service"
    assert lines[1].startswith("16 --priority=info RBEE_HIVE=blade ")
    assert os.pread(err, 9999, 0) == b"trouble\ntrouble\n"


def test_the_last_lines_are_read_through_the_door(
    journalctl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.journal.reader, "is_readable", lambda: False)
    journalctl.write_text("exit 0\n")
    with a_door(tmp_path, real) as scope:
        [line, trouble] = tail(LogQuery(model="bee"), 7, scope)
    assert (line.split()[1:3], trouble) == (["--quiet", "--lines=7"], "trouble")
    journalctl.write_text("exit 1\n")
    with a_door(tmp_path / "bin", real) as scope:
        assert tail(LogQuery(), 7, scope) == []
    assert tail(LogQuery(), 7, SYSTEM._replace(runtime=tmp_path / "none")) == []


@pytest.mark.deadline(20)
@pytest.mark.parametrize("stubborn", ["", "trap '' TERM\n"])
def test_journalctl_ends_with_who_asked(
    journalctl: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stubborn: str
) -> None:
    monkeypatch.setattr(door, "END_TIMEOUT", 0.2)
    journalctl.write_text(f"{stubborn}echo $$\nwhile :; do sleep 1; done\n")
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read, write = os.pipe()
    thread = threading.Thread(target=door.serve, args=(its, SYSTEM))
    thread.start()
    with ours, open(read) as output:  # a descriptor
        socket.send_fds(ours, [json.dumps({"options": ["-f"]}).encode()], [write, write])
        os.close(write)
        lines = [output.readline() for _ in range(3)]
        ours.close()
        assert lines[1] == "trouble\n"
        thread.join(10)
        assert not thread.is_alive()
        with pytest.raises(ProcessLookupError):
            os.kill(int(lines[2]), 0)
    its.close()


def send(content: bytes, descriptors: int = 2) -> Serve:
    """Whoever speaks to the door in another way."""
    return lambda channel: socket.send_fds(channel, [content], [1] * descriptors)


@pytest.mark.parametrize(
    ("content", "descriptors", "found"),
    [
        (b"{", 2, "is not JSON"),
        (b"[" * 5000, 2, "is not JSON"),
        (b"{}", 1, "brings two descriptors"),
        (b"{}", 0, "brings two descriptors"),
        (b" " * 17000, 2, "at most 16384 bytes"),
        (b'{"hive": "a b"}', 2, "hive"),
        (b'{"model": "--file"}', 2, "model"),
        (b'{"worker": "../x"}', 2, "worker"),
        (b'{"job": "7"}', 2, "job"),
        (b'{"options": ["_UID=0"]}', 2, "_UID=0"),
        (b'{"options": 7}', 2, "options"),
    ],
)
def test_what_is_no_query_is_refused_and_nothing_is_run(
    monkeypatch: pytest.MonkeyPatch, content: bytes, descriptors: int, found: str
) -> None:
    monkeypatch.setattr(door.subprocess, "Popen", lambda *_, **__: pytest.fail("journalctl is run"))
    before = len(os.listdir("/proc/self/fd"))  # a count
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, its:
        send(content, descriptors)(ours)
        door.serve(its, SYSTEM)
        problem = json.loads(ours.recv(9999))
        assert found in problem["detail"]
    assert len(os.listdir("/proc/self/fd")) == before


def test_who_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "QUERY_TIMEOUT", 0.05)
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, its:
        door.serve(its, SYSTEM)
        assert "no query came" in json.loads(ours.recv(9999))["detail"]


def test_the_reader_reports_what_the_door_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rbee.journal.reader, "BEGIN_TIMEOUT", 0.2)
    output = Outputs()
    with pytest.raises(NotRunning):
        ask_door(LogQuery(), output, SYSTEM._replace(runtime=tmp_path))
    with a_door(tmp_path, lambda channel: None) as scope, pytest.raises(Disconnected):
        ask_door(LogQuery(), output, scope)
    scope.logs_socket.unlink()
    silent: Serve = lambda channel: channel.recv(99) and channel.recv(99)  # noqa: E731
    with a_door(tmp_path, silent) as scope, pytest.raises(TimedOut):
        ask_door(LogQuery(), output, scope)
    scope.logs_socket.unlink()
    with a_door(tmp_path, real) as scope:
        with pytest.raises(BadInput, match="--rotate"):
            ask_door(LogQuery(options=("--rotate",)), output, scope)
        with pytest.raises(BadInput):
            ask_door(LogQuery(hive="a b"), output, scope)


@pytest.mark.parametrize("folder", ["var/log/journal", "run/log/journal"])
def test_a_journal_is_readable_by_who_may_open_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    assert is_readable(tmp_path)  # journalctl says that there is none

    file = tmp_path / folder / "0123" / "system.journal"
    file.parent.mkdir(parents=True)
    file.touch()
    assert is_readable(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: path != file)
    assert not is_readable(tmp_path)
