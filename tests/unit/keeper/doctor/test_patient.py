"""Which of rbee's programs the machine has that is examined."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.keeper.doctor.patient import Patient, Program

NOWHERE = Patient(None, Path("/nowhere"), is_root=True, sudo_user=None)
QUEEN, HIVE = NOWHERE.queen, NOWHERE.hive


@pytest.mark.parametrize(
    "programs", [(), (QUEEN,), (HIVE,), (QUEEN, HIVE)], ids=lambda programs: len(programs)
)
def test_what_has_a_launcher_below_the_root_is_installed(
    tmp_path: Path, programs: tuple[Program, ...]
) -> None:
    for program in programs:
        launcher = tmp_path / program.launcher
        launcher.parent.mkdir(parents=True, exist_ok=True)
        launcher.touch()

    patient = Patient(None, tmp_path, is_root=True, sudo_user=None)

    assert patient.programs == list(programs)
    assert [patient.is_installed(program) for program in (QUEEN, HIVE)] == [
        program in programs for program in (QUEEN, HIVE)
    ]


def test_each_program_has_its_user_and_its_units() -> None:
    assert (QUEEN.user, QUEEN.service, QUEEN.socket) == (
        "queen-rbee",
        "queen-rbee.service",
        "queen-rbee.socket",
    )
    assert (HIVE.user, HIVE.service, HIVE.socket) == ("rbee-hive", "rbee-hive.service", "rbee-hive.socket")
    assert QUEEN.path != HIVE.path
