"""The configuration: can the daemons run with it?"""

from __future__ import annotations

from collections.abc import Iterator

from rbee import config
from rbee.errors import BadConfig
from rbee.keeper.doctor.check import Complaint
from rbee.keeper.doctor.patient import Patient
from rbee.scope import HIVE_UNIT
from rbee.wire.types import LOCALHOST


def check_configuration(patient: Patient) -> Iterator[Complaint]:
    """A fault for what keeps a daemon from starting, a note for an unknown key."""
    try:
        settings = config.load(patient.root, patient.scope)
    except BadConfig as error:
        yield Complaint(error.message, hint=error.hint)
        return
    for warning in settings.warnings:
        yield Complaint(warning, is_fault=False)
    yield from complain_of_id(patient, settings.hive.id)


def complain_of_id(patient: Patient, hive_id: str) -> Iterator[Complaint]:
    """An Id= for the local hive that its queen does not know. A hive that has joined ignores Id=."""
    if patient.programs != [patient.queen, patient.hive] or hive_id == LOCALHOST:
        return
    place = config.where_set("Hive", "Id", patient.root, patient.scope)
    restart = patient.scope.systemctl(f"restart {HIVE_UNIT}", as_root=True)
    yield Complaint(
        f"the hive on this machine calls itself {hive_id}, by [Hive] Id= in {place}: its queen knows it as "
        f"{LOCALHOST} only, and refuses its heartbeats",
        hint=f"Delete the line Id={hive_id} in {place}; then: {restart}",
    )
