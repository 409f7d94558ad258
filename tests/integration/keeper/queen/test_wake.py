"""Waking the queen, with a queen that is served."""

from __future__ import annotations

from rbee.errors import UnitFailed
from rbee.scope import QUEEN_SOCKET_UNIT, QUEEN_UNIT
from rbee.systemd.unit import UnitState
from rbee.wire.routes import QueenRoutes
from tests.unit.keeper.doubles import ADDED, Rbeectl, WithQueen
from tests.unit.played_systemd import KILLED, PlayedBus


def test_what_failed_before_is_reset_before_it_is_started(
    bus: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    worn_out = UnitState("loaded", "failed", "failed", result="start-limit-hit")
    bus.states[QUEEN_UNIT] = bus.states[QUEEN_SOCKET_UNIT] = worn_out

    ran = with_queen({QueenRoutes.ADD_HIVE: ADDED}, lambda: rbeectl("add-hive", "localhost"))

    assert ran.code == 0, ran.err
    assert bus.asked == [
        ("reset-failed", QUEEN_UNIT), ("reset-failed", QUEEN_SOCKET_UNIT), ("start", QUEEN_UNIT),
    ]  # fmt: skip


def test_a_queen_who_dies_while_she_is_woken_is_awaited_once_more(
    bus: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    bus.refusals["start", QUEEN_UNIT] = UnitFailed("queen-rbee.service did not start: its result is 'signal'")
    bus.after["start", QUEEN_UNIT] = KILLED

    ran = with_queen({QueenRoutes.ADD_HIVE: ADDED}, lambda: rbeectl("add-hive", "localhost"))

    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[:3] == [
        "(bee keeper) queen is asleep, waking queen.",
        "(bee keeper) the queen died, waiting for systemd to bring her back.",
        "(bee keeper) queen is awake and healthy.",
    ]
    assert bus.asked == [("start", QUEEN_UNIT), ("start unless stopping", QUEEN_UNIT)]
