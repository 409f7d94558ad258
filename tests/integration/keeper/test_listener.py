"""Who has the queen's port, on real sockets of this machine; systemd is played."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from rbee.keeper.listener import closed_tcp, listeners
from rbee.scope import QUEEN_UNIT, TCP_SOCKET_UNIT
from rbee.systemd.bus import Bus
from rbee.systemd.unit import UnitState
from tests.unit.played_systemd import ACTIVE, PlayedBus

ME = pwd.getpwuid(os.getuid()).pw_name


def bus(active: str, address: str, *, queen: str = "active", is_open: bool = False) -> Bus:
    """systemd whose TCP socket at `address` is in the state `active`, and whose queen is in `queen`."""
    states = {
        TCP_SOCKET_UNIT: UnitState("loaded", active, active, result="resources", condition_held=is_open),
        QUEEN_UNIT: ACTIVE._replace(active=queen),
    }
    return cast(Bus, PlayedBus(states=states, address=address))


@pytest.fixture(params=["127.0.0.1", "::1"])
def taken(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port on which this process listens."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.socket(family) as listener:
        listener.bind((request.param, 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_who_listens_on_a_port_is_found_with_user_process_and_program(taken: int) -> None:
    (found,) = listeners(taken)

    assert (found.uid, found.pid) == (os.getuid(), os.getpid())
    assert str(found) == f"process {os.getpid()} ({found.command}) of user {ME}"
    assert found.command == Path("/proc/self/comm").read_text().strip()


def test_a_port_on_which_nobody_listens_is_nobodys() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert listeners(bound.getsockname()[1]) == []


def test_where_descriptors_may_not_be_seen_the_user_is_named_all_the_same(taken: int, tmp_path: Path) -> None:
    (tmp_path / "proc/net").mkdir(parents=True)
    for name in ("tcp", "tcp6"):
        shutil.copyfile(f"/proc/net/{name}", tmp_path / "proc/net" / name)

    (found,) = listeners(taken, tmp_path)

    assert (found.uid, found.pid) == (os.getuid(), None)
    assert str(found) == f"a process of user {ME}"


@pytest.mark.parametrize("active", ["active", "inactive"])
def test_a_socket_that_has_not_failed_is_not_complained_of(active: str, taken: int) -> None:
    assert closed_tcp(bus(active, f"[::]:{taken}")) is None


def test_a_socket_that_was_reset_is_missing_beside_a_queen_who_is_awake_and_open(taken: int) -> None:
    closed = closed_tcp(bus("inactive", f"[::]:{taken}", is_open=True))

    assert closed is not None
    assert f"has port {taken}" in closed.message


@pytest.mark.parametrize("queen", ["inactive", "activating", "deactivating"])
def test_a_queen_who_is_not_awake_misses_no_socket(taken: int, queen: str) -> None:
    assert closed_tcp(bus("inactive", f"[::]:{taken}", queen=queen, is_open=True)) is None


def test_a_failed_socket_is_told_with_who_has_its_port_and_both_ways_out(taken: int) -> None:
    closed = closed_tcp(bus("failed", f"[::]:{taken}"))

    assert closed is not None
    assert closed.message.startswith("no hive on another machine can reach the queen: queen-rbee-tcp.socket")
    assert f"process {os.getpid()}" in closed.message
    assert f"of user {ME} has port {taken}" in closed.message
    assert "tcp enable --listen" in closed.hint


def test_a_socket_that_failed_of_something_else_is_told_with_systemds_result() -> None:
    closed = closed_tcp(bus("failed", "[::]:1"))

    assert closed is not None
    assert "could not be opened at [::]:1 (resources)" in closed.message
    assert "journalctl -u queen-rbee-tcp.socket" in closed.hint
