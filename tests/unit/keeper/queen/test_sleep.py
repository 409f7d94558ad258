"""Sending the queen to sleep."""

from __future__ import annotations

from rbee.errors import UnitFailed
from rbee.scope import HIVE_SOCKET_UNIT, QUEEN_SOCKET_UNIT, QUEEN_UNIT
from rbee.systemd.unit import UnitState
from tests.unit.keeper.doubles import Ran, Rbeectl
from tests.unit.played_systemd import ACTIVE, INACTIVE, PlayedBus


def test_sleeping_stops_her_and_leaves_her_socket(awake: PlayedBus, rbeectl: Rbeectl) -> None:
    ran = rbeectl("sleep")

    assert awake.asked == [("stop", QUEEN_UNIT)]
    assert ran == Ran(0, "(bee keeper) Sending queen to sleep\nQueen is asleep\n", "")
    assert rbeectl("sleep", "--json").json == [{"event": "done", "queen": "asleep"}]


def test_sleeping_from_off_has_the_sockets_listen(bus: PlayedBus, rbeectl: Rbeectl) -> None:
    bus.states[QUEEN_SOCKET_UNIT] = bus.states[HIVE_SOCKET_UNIT] = INACTIVE

    assert rbeectl("sleep") == Ran(0, "Queen is asleep\n", "")
    assert bus.asked == [("start", QUEEN_SOCKET_UNIT), ("start", HIVE_SOCKET_UNIT)]


def test_a_socket_that_is_not_installed_is_left_alone(bus: PlayedBus, rbeectl: Rbeectl) -> None:
    bus.states[HIVE_SOCKET_UNIT] = UnitState("not-found", "inactive", "dead")

    assert rbeectl("sleep").code == 0
    assert bus.asked == []


def test_a_queen_who_is_woken_again_and_again_is_said_not_to_sleep(
    awake: PlayedBus, rbeectl: Rbeectl
) -> None:
    awake.after_stop[QUEEN_UNIT] = ACTIVE

    ran = rbeectl("sleep")

    assert ran.code == UnitFailed.exit_code
    assert awake.asked == [("stop", QUEEN_UNIT)] * 3
    assert "the queen is woken each time that it is stopped" in ran.err


def test_sleeping_without_waiting_only_asks(awake: PlayedBus, rbeectl: Rbeectl) -> None:
    assert rbeectl("sleep", "--no-wait").out.endswith("Queen is being stopped\n")
    assert awake.asked == [("ask stop", QUEEN_UNIT)]
