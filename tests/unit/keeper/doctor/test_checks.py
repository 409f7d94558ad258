"""All checks together."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import cast

from rbee.keeper.doctor.checks import CHECKS
from rbee.keeper.doctor.configuration import check_configuration
from rbee.keeper.doctor.patient import Patient
from rbee.keeper.doctor.polkit import check_polkit
from rbee.keeper.doctor.sockets import check_sockets
from rbee.keeper.doctor.units import check_units
from rbee.scope import QUEEN_SOCKET_UNIT, QUEEN_UNIT
from rbee.systemd.bus import Bus
from tests.unit.keeper.doctor.doubles import asked
from tests.unit.played_systemd import ACTIVE, INACTIVE, PlayedBus


def test_a_machine_on_which_all_is_well_has_no_complaints(bus: PlayedBus, root: Path) -> None:
    for check in (check_polkit, check_units, check_configuration):
        assert asked(check, bus, root) == []
    # Who runs this test need not be root, whose these files should be.
    assert {complaint.text.split(" should ")[0] for complaint in asked(check_sockets, bus, root)} <= {
        "/run/rbee",
        "/run/rbee/queen.sock",
        "/run/rbee/hive.sock",
    }


def test_without_a_bus_the_rest_is_looked_at_as_far_as_it_goes(root: Path) -> None:
    for check in (check_polkit, check_units):
        (note,) = asked(check, None, root)
        assert (note.is_fault, note.cures) == (False, ())
    shutil.rmtree(root / "run/rbee")
    (complaint,) = asked(check_sockets, None, root)
    assert complaint.cures == (("systemd-tmpfiles", "--create", "rbee.conf"),)


def test_of_a_machine_with_a_hive_only_no_queen_is_expected(bus: PlayedBus, root: Path) -> None:
    (root / "usr/libexec/rbee/queen-rbee").unlink()
    del bus.states[QUEEN_UNIT], bus.states[QUEEN_SOCKET_UNIT]

    assert asked(check_units, bus, root) == []
    patient = Patient(cast(Bus, bus), root, False, None)
    assert {check.name for check in CHECKS if not check.is_of_use(patient)} == {
        "catalog",
        "gateway",
        "serving",
        "store",
    }


def test_a_queen_that_is_asleep_is_not_asked_for_its_models(bus: PlayedBus, root: Path) -> None:
    (serving,) = (check for check in CHECKS if check.name == "serving")

    bus.states[QUEEN_UNIT] = ACTIVE
    assert serving.is_of_use(Patient(cast(Bus, bus), root, True, None))
    bus.states[QUEEN_UNIT] = INACTIVE
    assert not serving.is_of_use(Patient(cast(Bus, bus), root, True, None))
    assert serving.is_of_use(Patient(None, root, True, None))
