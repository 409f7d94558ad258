"""A hive whose queen is on another machine: are they connected?"""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.keeper.doctor.link import check_link
from rbee.scope import HIVE_UNIT, SYSTEM
from rbee.systemd.unit import UnitState
from tests.unit.keeper.doctor.doubles import FAILED, asked
from tests.unit.played_systemd import ACTIVE, NOT_FOUND, PlayedBus

TROUBLE = ACTIVE._replace(status_text="queen at queen:8500: nobody listens there")


@pytest.mark.parametrize(
    "state",
    [ACTIVE._replace(status_text="queen at queen:8500, heartbeat every 15 s"), FAILED, NOT_FOUND],
    ids=["connected", "told by its unit", "not there"],
)
def test_a_hive_that_beats_or_that_another_check_tells_of_has_no_complaints(
    bus: PlayedBus, root: Path, state: UnitState
) -> None:
    bus.states[HIVE_UNIT] = state

    assert asked(check_link, bus, root) == []


def test_a_hive_that_does_not_reach_its_queen_is_a_fault_with_the_reason(bus: PlayedBus, root: Path) -> None:
    bus.states[HIVE_UNIT] = TROUBLE

    (complaint,) = asked(check_link, bus, root)

    assert complaint.text == "this hive is not connected to its queen at queen:8500: nobody listens there"
    assert complaint.is_fault


def test_a_hive_that_was_never_asked_to_join_is_no_fault(bus: PlayedBus, root: Path) -> None:
    bus.states[HIVE_UNIT] = ACTIVE

    (note,) = asked(check_link, bus, root)

    assert (note.text, note.hint, note.is_fault) == ("this hive has joined no queen", SYSTEM.rejoin, False)
