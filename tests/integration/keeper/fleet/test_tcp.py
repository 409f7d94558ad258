"""Opening the queen to other machines."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

import rbee.keeper.fleet.address
import rbee.keeper.fleet.tcp
from rbee.errors import UnitFailed
from rbee.scope import QUEEN_UNIT, TCP_SOCKET_UNIT
from rbee.systemd.unit import UnitState
from rbee.wire.fleet import SetTcp
from tests.unit.keeper.doubles import FINGERPRINT, Opened, Rbeectl, WithQueen, in_scope
from tests.unit.played_systemd import PlayedBus


def test_enabling_restarts_her_with_the_socket_and_says_so_first(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, monkeypatch: pytest.MonkeyPatch
) -> None:
    addresses = ["10.9.9.9", "10.0.0.5", "fd00::5"]
    monkeypatch.setattr(rbee.keeper.fleet.address, "own_addresses", lambda: addresses)
    monkeypatch.setattr(rbee.keeper.fleet.address, "_way_out", lambda: "10.0.0.5")
    queen = Opened(awake)
    ran = with_queen(queen.handlers, lambda: rbeectl("tcp", "enable"))

    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "(bee keeper) queen is awake and healthy.",
        "(bee keeper) restarting the queen with her TCP socket; hives reconnect",
        f"The queen listens on [::]:8500; fingerprint {FINGERPRINT}",
        "On the machine that is to join: sudo rbeectl join 10.0.0.5:8500 --token TOKEN",
        "If it does not reach 10.0.0.5:8500, use one of: 10.9.9.9:8500 [fd00::5]:8500",
        "For a TOKEN: rbeectl token create",
    ]
    assert awake.asked == [("restart", QUEEN_UNIT)]
    assert queen.asked == [SetTcp(True)]


def test_enabling_twice_restarts_nobody(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    ran = with_queen(Opened(awake, is_open=True).handlers, lambda: rbeectl("tcp", "enable", "--json"))

    assert ran.json[-1] == {
        "event": "done", "is_open": True, "listens": ["[::]:8500"], "fingerprint": FINGERPRINT,
        "expires_ms": 4_000_000_000_000, "problem": None,
    }  # fmt: skip
    assert awake.asked == []


def test_disabling_restarts_her_without_the_socket(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen(Opened(awake, is_open=True).handlers, lambda: rbeectl("tcp", "disable"))

    assert ran.out.splitlines()[-1] == "The queen listens on its own machine only"
    assert awake.asked == [("restart", QUEEN_UNIT)]


def test_a_socket_that_does_not_open_is_named_with_where_to_look(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    queen = Opened(awake)

    def restart(unit: str, **options: Any) -> None:
        PlayedBus.restart(awake, unit, **options)
        awake.states[TCP_SOCKET_UNIT] = UnitState("loaded", "failed", "failed", result="resources")

    awake.restart = restart  # type: ignore[method-assign]
    ran = with_queen(queen.handlers, lambda: rbeectl("tcp", "enable"))

    assert ran.code == 1
    assert f"{TCP_SOCKET_UNIT} is failed (resources); the queen listens on its own machine only" in ran.err
    # She is not left half-open, to try it again at her next start.
    assert queen.asked == [SetTcp(True), SetTcp(False)]
    assert f"try: systemctl status {TCP_SOCKET_UNIT}" in ran.err


def test_another_address_is_a_drop_in_that_is_whole(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropin = tmp_path / "queen-rbee-tcp.socket.d/50-listen.conf"
    in_scope(monkeypatch, dropins=tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    awake.reload = lambda: awake.asked.append(("reload", ""))  # type: ignore[attr-defined]
    queen = Opened(awake, is_open=True)

    for listen, line in (("127.0.0.1:9001", "127.0.0.1:9001"), ("[::1]", "[::1]:8500")):
        awake.asked.clear()
        ran = with_queen(queen.handlers, lambda listen=listen: rbeectl("tcp", "enable", "--listen", listen))
        assert ran.code == 0, ran
        assert dropin.read_text().splitlines()[1:] == ["[Socket]", "ListenStream=", f"ListenStream={line}"]
        assert os.listdir(dropin.parent) == ["50-listen.conf"]
        assert [verb for verb, _ in awake.asked] == ["reload", "restart"]
    awake.asked.clear()
    assert with_queen(queen.handlers, lambda: rbeectl("tcp", "enable", "--listen", "[::1]")).code == 0
    assert awake.asked == []


@pytest.mark.parametrize("before", [None, "[Socket]\nListenStream=\nListenStream=127.0.0.1:9000\n"])
@pytest.mark.parametrize("breaks", ["reload", "restart", "socket"])
def test_an_address_that_does_not_work_leaves_the_queen_listening_as_before(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, before: str | None, breaks: str,
) -> None:  # fmt: skip
    dropin = tmp_path / "queen-rbee-tcp.socket.d/50-listen.conf"
    if before is not None:
        dropin.parent.mkdir()
        dropin.write_text(before)
    in_scope(monkeypatch, dropins=tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    queen = Opened(awake, is_open=True)
    works = awake.restart

    def is_new() -> bool:
        return dropin.exists() and "9001" in dropin.read_text()

    def reload() -> None:
        if breaks == "reload" and is_new():
            raise UnitFailed("reloading the unit files: no memory")

    def restart(unit: str, **options: Any) -> None:
        if breaks == "restart" and is_new():
            raise UnitFailed("it did not start")
        works(unit, **options)
        queen.listens = not is_new()

    awake.reload = reload  # type: ignore[attr-defined]
    awake.restart = restart  # type: ignore[method-assign]
    ran = with_queen(queen.handlers, lambda: rbeectl("tcp", "enable", "--listen", "127.0.0.1:9001"))

    assert ran.code == 1
    assert "; the queen listens on [::]:8500, as before" in ran.err
    assert (dropin.read_text() if dropin.exists() else None) == before


def test_an_address_where_nobody_can_listen_is_refused_before_anything_is_changed(
    bus: PlayedBus, rbeectl: Rbeectl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_scope(monkeypatch, dropins=tmp_path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    # TEST-NET-1, which no machine has.
    ran = rbeectl("tcp", "enable", "--listen", "192.0.2.1:9000")
    assert (ran.code, ran.out) == (2, "")
    assert "this machine does not have the address 192.0.2.1" in ran.err
    assert "  try: ip -brief address\n" in ran.err
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ran = rbeectl("tcp", "enable", "--listen", f"127.0.0.1:{port}")
    assert ran.code == 2
    assert f"another program already listens on port {port}" in ran.err
    assert list(tmp_path.iterdir()) == []
    assert bus.asked == []
