"""The verb status."""

from __future__ import annotations

import pytest

from rbee.scope import QUEEN_UNIT, SYSTEM
from rbee.systemd.unit import UnitState
from tests.unit.keeper.doubles import BEATS, Rbeectl, has_no_queen
from tests.unit.played_systemd import ACTIVATING, ACTIVE, INACTIVE, PlayedBus


@pytest.mark.parametrize(
    ("hive", "redial", "code", "said"),
    [
        (ACTIVE._replace(status_text=BEATS), INACTIVE, 0, "is connected to its queen at queen:8500"),
        (
            ACTIVE._replace(status_text="queen at [fd00::1]:8500: nobody listens"), INACTIVE,
            3, "is not connected to its queen at [fd00::1]:8500: nobody listens",
        ),
        (
            ACTIVE._replace(status_text="queen at queen:8500, no beat yet"), INACTIVE,
            3, "is not connected to its queen at queen:8500",
        ),
        (
            ACTIVE._replace(status_text="queen at /run/rbee/queen.sock: it is not there"), INACTIVE,
            3, f"has joined no queen\n  try: {SYSTEM.rejoin}",
        ),
        (
            INACTIVE._replace(status_text=BEATS),
            ACTIVATING._replace(status_text="waits for the queen at q:1"),
            3, "waits for its queen at q:1, who has shut it down",
        ),
        (
            INACTIVE._replace(status_text=BEATS), INACTIVE,
            3, "does not run: rbee-hive.service is inactive\n  try: sudo systemctl start rbee-hive.service",
        ),
    ],
)  # fmt: skip
def test_the_status_of_a_machine_without_a_queen_is_its_hive_s(
    bus: PlayedBus, rbeectl: Rbeectl, hive: UnitState, redial: UnitState, code: int, said: str
) -> None:
    has_no_queen(bus, hive, redial)

    ran = rbeectl("status")

    assert (ran.code, ran.err) == (code, "")
    assert f"This hive {said}" in ran.out
    assert "queen-rbee" not in ran.out
    assert (rbeectl("status", "--json").json[0]["remote_queen"] or {}).get("connected", False) == (code == 0)


def test_status_of_an_asleep_queen_exits_3_and_asks_nobody_but_systemd(
    bus: PlayedBus, rbeectl: Rbeectl
) -> None:
    ran = rbeectl("status")

    assert (ran.code, ran.err) == (3, "")
    assert "queen-rbee.service - the queen is asleep" in ran.out
    assert "Active: inactive (dead)" in ran.out
    assert "Hive" not in ran.out
    assert bus.asked == []


def test_status_of_a_failed_queen_shows_her_result(bus: PlayedBus, rbeectl: Rbeectl) -> None:
    bus.states[QUEEN_UNIT] = UnitState(
        "loaded", "failed", "failed", result="exit-code", status_text="it is damaged\x1b[2J"
    )

    ran = rbeectl("status")

    assert ran.code == 3
    assert "Result: exit-code" in ran.out
    assert "Status: it is damaged\\x1b[2J" in ran.out
