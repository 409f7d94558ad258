"""The launcher becomes an engine, and its watcher reports to systemd and ends."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rbee.engines.order import Order, waiting
from tests.unit.engines.test_order import read_as_systemd

REPOSITORY = Path(__file__).parents[3]
PATIENCE = 20.0

ENGINE = f"""#!{sys.executable}
import os, socket, sys, time
assert not [name for name in os.environ if name.startswith("RBEE_") or name == "NOTIFY_SOCKET"], os.environ
model, path, seconds, end = sys.argv[1:]
listener = socket.socket(socket.AF_UNIX)
listener.bind(path)
listener.listen()
content = open(model, "rb").read()
began = time.monotonic()
if end:
    time.sleep(float(seconds))
    os._exit(int(end))
while True:
    link, _ = listener.accept()
    is_ready = time.monotonic() - began > float(seconds)
    link.recv(4096)
    link.sendall(b"HTTP/1.1 %d X\\r\\nContent-Length: 2\\r\\n\\r\\nok" % (200 if is_ready else 503))
    link.close()
    if is_ready:
        print(os.getpid(), os.environ["OWN"], os.environ["HOME"], flush=True)
"""


class Machine:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.program = root / "engine"
        self.program.write_text(ENGINE)
        self.program.chmod(0o755)
        self.model = root / "model"
        self.model.write_bytes(bytes(3_000_000))
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(root / "notify"))
        self.notify.settimeout(PATIENCE)

    def order(self, seconds: float = 0, end: str = "") -> Order:
        path = self.root / "engine.sock"
        argv = (str(self.program), str(self.model), str(path), str(seconds), end)
        return Order(
            "bee", "test", argv, (("OWN", "1"),), self.model, "/srv/bee.gguf", path, "/health", 6_000_000
        )

    def launch(self, order: Order, wait: int = 0) -> subprocess.Popen[str]:
        variables = read_as_systemd(order.content() + waiting(wait))
        return subprocess.Popen(
            [sys.executable, "-m", "rbee.worker", "bee-1"],
            env={**os.environ, **variables, "NOTIFY_SOCKET": str(self.root / "notify"), "PYTHONPATH": "."},
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def told(self, last: str) -> list[str]:
        """What systemd was told, up to the message that begins so."""
        messages: list[str] = []
        while not messages or not messages[-1].startswith(last):
            messages.append(self.notify.recv(4096).decode())
        return messages


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    yield made
    made.notify.close()


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_the_main_process_is_the_engine_and_nothing_of_ours_stays(machine: Machine) -> None:
    (machine.root / "engine.sock").touch()  # of an engine that was killed
    with machine.launch(machine.order(1.2)) as engine:
        try:
            *loading, ready = machine.told("READY=1")
            assert ready == "READY=1\nSTATUS=serving bee"
            assert loading
            assert all(one.startswith("STATUS=loading ") for one in loading)
            assert any("EXTEND_TIMEOUT_USEC=30000000" in one for one in loading)
            assert engine.stdout is not None
            assert engine.stdout.readline().split() == [str(engine.pid), "1", str(machine.root)]
            assert children(engine.pid) == []
        finally:
            engine.kill()


def test_a_restart_waits_as_the_hive_has_ordered(machine: Machine) -> None:
    began = time.monotonic()
    with machine.launch(machine.order(), wait=2) as engine:
        try:
            first, *_ = machine.told("READY=1")
            assert first == "STATUS=waiting 2 s before the next start"
            assert time.monotonic() - began >= 2
        finally:
            engine.kill()


def test_the_watcher_ends_with_an_engine_that_dies(machine: Machine) -> None:
    with machine.launch(machine.order(0.2, end="3")) as engine:
        assert engine.wait(PATIENCE) == 3
    deadline = time.monotonic() + PATIENCE
    # It held the output of the launcher open.
    while any(str(machine.program) in one for one in running()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def running() -> list[str]:
    found = []
    for one in Path("/proc").glob("[0-9]*/environ"):
        try:
            found.append(one.read_bytes().decode(errors="replace"))
        except OSError:
            continue
    return found


def test_what_cannot_be_launched_says_why_with_the_cure(machine: Machine) -> None:
    order = machine.order()
    missing = order._replace(argv=("/nowhere/engine",))
    gone = order._replace(model=machine.root / "none")
    for wrong, said in (
        (
            missing,
            "the program of the engine test, /nowhere/engine, was not found; try: rbeectl list-engines",
        ),
        (
            gone,
            "the worker cannot find the model's file /srv/bee.gguf: No such file or directory",
        ),
    ):
        with machine.launch(wrong) as launcher:
            _, err = launcher.communicate(timeout=PATIENCE)
        assert launcher.returncode == 78
        assert said in err
        assert machine.told("STATUS=")[-1].startswith(f"STATUS={said}")


def test_without_an_order_it_is_no_worker() -> None:
    ran = subprocess.run(
        [sys.executable, "-m", "rbee.worker", "bee-1"],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        timeout=20,
    )
    assert ran.returncode == 78
    assert "the worker's environment, which the hive writes, is not valid" in ran.stderr
