"""The connection of a hive to its queen on another machine."""

from __future__ import annotations

from collections.abc import Iterator

from rbee.keeper.doctor.check import Complaint, no_bus
from rbee.keeper.doctor.patient import Patient
from rbee.keeper.local_hive import LocalHive


def check_link(patient: Patient) -> Iterator[Complaint]:
    """Is a hive whose queen is on another machine connected to it?"""
    if patient.bus is None:
        yield no_bus(patient.scope)
        return
    local = LocalHive.find(patient.bus)
    if local.is_connected or local.hive.load != "loaded" or local.hive.active == "failed":
        return  # check_units() reports what is wrong with the unit
    yield Complaint(
        f"this hive {local.describe()}",
        hint="; ".join((local.hint() or "").splitlines()) or None,
        # A hive that waits for its queen, or has never joined one, is as somebody wanted it.
        is_fault=local.hive.is_active and local.link is not None,
    )
