"""The verbs of tcp."""

from __future__ import annotations

from starlette.requests import Request

from rbee.scope import QUEEN_UNIT
from rbee.server.app import Handler
from rbee.wire.fleet import Tcp
from rbee.wire.routes import QueenRoutes, Route
from tests.unit.keeper.doubles import FINGERPRINT, Opened, Rbeectl, WithQueen
from tests.unit.played_systemd import INACTIVE, PlayedBus


def test_her_status_is_shown_and_wakes_nobody(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen(Opened(awake, is_open=True).handlers, lambda: rbeectl("tcp", "status"))

    lines = [line.strip() for line in ran.out.splitlines()]
    assert lines[1:3] == ["Listening: [::]:8500", f"Fingerprint: {FINGERPRINT}"]
    awake.states[QUEEN_UNIT] = INACTIVE
    assert rbeectl("tcp", "status").code == 3
    assert awake.asked == []


def test_keys_with_which_nobody_can_join_are_named(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    async def tcp(_request: Request) -> Tcp:
        return Tcp(True, ("[::]:8500",), FINGERPRINT, 4_000_000_000_000, "the CA is not valid before 2027")

    handlers: dict[Route, Handler] = {QueenRoutes.TCP: tcp, QueenRoutes.SET_TCP: tcp}
    shown = with_queen(handlers, lambda: rbeectl("tcp", "status"))
    assert shown.out.splitlines()[-1].strip() == (
        "Problem: the CA is not valid before 2027. Try: sudo rbeectl doctor"
    )
    told = with_queen(handlers, lambda: rbeectl("tcp", "status", "--json")).json[0]
    assert told["problem"] == "the CA is not valid before 2027"
    opened = with_queen(handlers, lambda: rbeectl("tcp", "enable"))
    assert "No hive can join: the CA is not valid before 2027. Try: sudo rbeectl doctor" in opened.out
