"""The queen's port is somebody else's when she wakes: who has it is said, and she is open once it is free."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from testbed.machine import Machine
from testbed.trees import Trees

from tests.system.commands import QUEEN, SOCKETS, active, await_stopped, main_pid, rbeectl, unit
from tests.system.fleet.fleet import Fleet, fleet_of

TCP_SOCKET, RETRY = "queen-rbee-tcp.socket", "queen-rbee-tcp-retry.service"

TAKE = """
import signal, socket
listener = socket.socket(socket.AF_INET6)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
listener.bind(("::", 8500))
listener.listen()
print("taken", flush=True)
signal.pause()
"""


@contextmanager
def taken_by(machine: Machine, user: str) -> Iterator[None]:
    """The queen's port, by an ordinary program that would share it with anybody."""
    process = machine.popen("python3", "-c", TAKE, user=user)
    try:
        assert process.stdout
        assert process.stdout.readline() == "taken\n"
        yield
    finally:
        if process.poll() is None:  # it has not gone with a reboot
            machine.signal(process, signal.SIGTERM)
            process.wait(timeout=10)


def await_retry(machine: Machine) -> None:
    """It starts when the queen has."""
    machine.run("sh", "-c", f"until systemctl --quiet is-active {RETRY}; do sleep 0.02; done", timeout=10)


@pytest.fixture
def fleet(trees: Trees, debs: list[Path], suite: str) -> Iterator[Fleet]:
    with fleet_of(trees, debs, queen=suite, hives=1) as fleet:
        yield fleet


def test_a_port_taken_while_she_sleeps_is_said_with_who_has_it_and_mended_when_it_is_free(
    fleet: Fleet,
) -> None:
    queen = fleet.queen
    assert rbeectl(queen, "sleep").code == 0
    with taken_by(queen, "mallory"):
        woken = rbeectl(queen, "wake")
        assert woken.code == 0
        told = "no hive on another machine can reach the queen: queen-rbee-tcp.socket could not be opened: "
        for answer in (woken, rbeectl(queen, "status"), rbeectl(queen, "list-hives")):
            assert f"{told}a process of user mallory has port 8500" in answer.err, answer
            assert "sudo rbeectl tcp enable --listen" in answer.err
        assert rbeectl(queen, "status", "--json").json["tcp"]["problem"].startswith(told)
        as_root = rbeectl(queen, "list-hives", user=None)
        assert re.search(r"process \d+ \(python3\) of user mallory has port 8500", as_root.err), as_root
        examined = rbeectl(queen, "doctor", user=None)
        assert examined.code == 1
        assert "of user mallory has port 8500" in examined.out
        assert "queen-rbee-tcp.socket is closed" in unit(queen, QUEEN)["StatusText"]
        assert len(fleet.told("tcp-closed")) == 1
        await_retry(queen)
        # She serves her own machine all the same.
        assert active(queen, QUEEN, *SOCKETS) == ["active", "active", "active"]

    fleet.await_state("gpu1", "online", 30)
    assert len(fleet.told("tcp-reopening")) == 1
    assert active(queen, TCP_SOCKET) == ["active"]
    await_stopped(queen, RETRY)
    assert rbeectl(queen, "status").err == ""
    assert rbeectl(queen, "doctor", user=None).code == 0


def test_nothing_waits_for_the_port_of_a_queen_who_is_put_to_sleep_or_turned_off(fleet: Fleet) -> None:
    queen = fleet.queen
    assert rbeectl(queen, "sleep").code == 0
    with taken_by(queen, "mallory"):
        for verb in ("sleep", "shutdown"):
            assert rbeectl(queen, "wake").code == 0
            await_retry(queen)
            assert rbeectl(queen, verb).code == 0
            assert active(queen, QUEEN, RETRY) == ["inactive", "inactive"]


def test_a_queen_who_is_killed_and_a_machine_that_reboots_meanwhile_change_nothing_of_that(
    fleet: Fleet,
) -> None:
    queen = fleet.queen
    assert rbeectl(queen, "sleep").code == 0
    with taken_by(queen, "mallory"):
        assert rbeectl(queen, "wake").code == 0
        await_retry(queen)
        before = main_pid(queen, QUEEN)
        queen.run("systemctl", "kill", "--signal=KILL", QUEEN)
        back = (
            f'until p=$(systemctl show -P MainPID {QUEEN}); [ "$p" != 0 ] && [ "$p" != {before} ]; do :; done'
        )
        queen.run("sh", "-c", back, timeout=15)
        assert rbeectl(queen, "wake").code == 0
        assert "of user mallory has port 8500" in rbeectl(queen, "status").err
        await_retry(queen)
    fleet.await_state("gpu1", "online", 30)

    assert rbeectl(queen, "sleep").code == 0
    with taken_by(queen, "mallory"):
        assert rbeectl(queen, "wake").code == 0
        await_retry(queen)
        queen.reboot()
    fleet.await_state("gpu1", "online", 30)
    assert rbeectl(queen, "status").err == ""
