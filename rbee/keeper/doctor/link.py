"""The link of a hive to its queen on another machine."""

from __future__ import annotations

from collections.abc import Iterator

from rbee.keeper.doctor.check import NO_BUS, Complaint
from rbee.keeper.doctor.patient import Patient
from rbee.keeper.lone import LoneHive


def check_link(patient: Patient) -> Iterator[Complaint]:
    """Of a hive whose queen is on another machine: are they connected?"""
    if patient.bus is None:
        yield NO_BUS
        return
    lone = LoneHive.find(patient.bus)
    if lone.is_connected or lone.hive.load != "loaded" or lone.hive.active == "failed":
        return  # what is wrong with the unit is said of the unit
    yield Complaint(
        f"this hive {lone.describe()}",
        hint="; ".join((lone.hint() or "").splitlines()) or None,
        # One who waits, or was never asked to join, is as somebody wanted it.
        is_fault=lone.hive.is_active and lone.link is not None,
    )
