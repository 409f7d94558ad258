"""Turning everything off."""

from __future__ import annotations

import pytest

import rbee.keeper.queen.shutdown
from rbee.errors import NotPermitted
from rbee.scope import FORGET_UNIT, HIVE_SOCKET_UNIT, HIVE_UNIT, QUEEN_SOCKET_UNIT, QUEEN_UNIT, TARGET
from rbee.systemd.unit import UnitState
from tests.unit.keeper.doubles import Ran, Rbeectl, has_no_queen
from tests.unit.played_systemd import ACTIVE, INACTIVE, PlayedBus


def test_a_shutdown_without_a_queen_is_of_this_machine_s_hive(bus: PlayedBus, rbeectl: Rbeectl) -> None:
    has_no_queen(bus, ACTIVE)

    assert rbeectl("shutdown") == Ran(0, "This machine's hive is off\n", "")
    assert bus.asked[0] == ("stop", TARGET)


def test_an_asleep_queen_is_turned_off_without_waking_her(bus: PlayedBus, rbeectl: Rbeectl) -> None:
    ran = rbeectl("shutdown")

    assert (ran.code, ran.out, ran.err) == (0, "Queen and hives are off\n", "")
    assert bus.asked == [("stop", TARGET), ("start", FORGET_UNIT)]
    assert bus.states[QUEEN_SOCKET_UNIT] == INACTIVE
    assert rbeectl("shutdown").code == 0, "shutting down twice is no error"


@pytest.mark.parametrize("unit", [QUEEN_UNIT, HIVE_UNIT, QUEEN_SOCKET_UNIT, HIVE_SOCKET_UNIT])
def test_a_unit_that_is_not_stopped_is_an_error(bus: PlayedBus, rbeectl: Rbeectl, unit: str) -> None:
    bus.states[unit] = UnitState("loaded", "deactivating", "stop-sigterm")
    bus.unstoppable.add(unit)

    ran = rbeectl("shutdown")

    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines() == [
        f"rbeectl: {unit} is still deactivating",
        f"  try: systemctl status {unit}",
    ]


def test_who_may_not_shut_down_is_told_why(
    bus: PlayedBus, rbeectl: Rbeectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.keeper.permission, "explain", lambda refusal, scope: NotPermitted("explained"))
    bus.refusals["stop", TARGET] = NotPermitted("systemd does not let you do this")

    assert rbeectl("shutdown").code == 77
