"""The verbs wake and sleep."""

from __future__ import annotations

import pytest

from rbee.errors import NotPermitted
from rbee.scope import QUEEN_UNIT
from rbee.systemd.unit import UnitState
from tests.unit.keeper.doubles import Rbeectl
from tests.unit.played_systemd import ACTIVE, INACTIVE, PlayedBus

FAILED = UnitState("loaded", "failed", "failed", result="start-limit-hit")


def test_waking_starts_her_unit_and_says_so(bus: PlayedBus, rbeectl: Rbeectl) -> None:
    ran = rbeectl("wake")

    assert bus.asked == [("start", QUEEN_UNIT)]
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "Queen is awake")
    assert rbeectl("wake", "--json").json[-1] == {"event": "done", "queen": "awake"}
    assert bus.asked == [("start", QUEEN_UNIT)]  # she was awake by then


def test_waking_without_waiting_only_asks(bus: PlayedBus, rbeectl: Rbeectl) -> None:
    bus.states[QUEEN_UNIT] = FAILED

    ran = rbeectl("wake", "--no-wait")

    assert bus.asked == [("reset-failed", QUEEN_UNIT), ("ask start", QUEEN_UNIT)]
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "Queen is being woken")


@pytest.mark.parametrize(("verb", "asks"), [("wake", "start"), ("sleep", "stop")])
def test_who_may_neither_wake_her_nor_send_her_to_sleep_is_told_why(
    bus: PlayedBus, rbeectl: Rbeectl, verb: str, asks: str
) -> None:
    bus.states[QUEEN_UNIT] = INACTIVE if verb == "wake" else ACTIVE
    bus.refusals[asks, QUEEN_UNIT] = NotPermitted("systemd does not let you do this")

    ran = rbeectl(verb)

    assert ran.code == 77
    assert "try: " in ran.err
