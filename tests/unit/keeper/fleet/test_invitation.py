"""An invitation is taken up, or the hive is what it was before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import rbee.keeper.fleet.invitation
from rbee.errors import JobReplaced, TimedOut, UnitFailed
from rbee.scope import HIVE_UNIT, JOIN_UNIT, REDIAL_UNIT
from tests.unit.keeper.doubles import STILL, TEXT, Rbeectl
from tests.unit.played_systemd import ACTIVE, INACTIVE, PlayedBus


@pytest.mark.parametrize("verb", ["stop", "start"])
def test_an_operator_whose_job_another_replaced_starts_the_hive_as_the_other_does(
    bus: PlayedBus, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    bus.states |= {JOIN_UNIT: INACTIVE, REDIAL_UNIT: INACTIVE}
    replaced = [JobReplaced("somebody else has it stopped")]
    do = getattr(bus, verb)

    def done(unit: str, **options: Any) -> None:
        do(unit, **options)
        if unit == HIVE_UNIT and replaced:
            raise replaced.pop()

    monkeypatch.setattr(bus, verb, done)

    rbee.keeper.fleet.invitation.restart_hive(bus, lambda most: most)

    assert replaced == []
    assert bus.states[HIVE_UNIT] == ACTIVE


def test_a_deadline_that_is_over_is_noticed_before_the_hive_is_stopped(bus: PlayedBus) -> None:
    bus.states[HIVE_UNIT] = STILL
    lefts = iter([45.0])

    def left(_most: float) -> float:
        for one in lefts:
            return one
        raise TimedOut("it was not done within the 1 s of --timeout")

    with pytest.raises(TimedOut):
        rbee.keeper.fleet.invitation.restart_hive(bus, left)  # type: ignore[arg-type]
    assert bus.asked == [("start", JOIN_UNIT)]


def test_a_hive_that_was_stopped_stays_so_where_joining_fails(
    bus: PlayedBus, rbeectl: Rbeectl, joining: Path
) -> None:
    bus.refusals["start", JOIN_UNIT] = UnitFailed("it did not start")
    ran = rbeectl("join", "queen", "--token", TEXT)

    assert ran.err == "rbeectl: it did not start\n"
    assert ("start", HIVE_UNIT) not in bus.asked
