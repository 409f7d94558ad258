"""The store of the models that were fetched: is there room for more?"""

from __future__ import annotations

import os
from collections.abc import Iterator

from rbee.keeper.doctor.check import Complaint
from rbee.keeper.doctor.patient import Patient
from rbee.text import shown_size

ROOM = 2**30
"""Bytes that have to be free: less than any model that is worth fetching."""

SHARE = 0.02
"""A share of the file system, which has to be free instead if that is less."""


def has_store(patient: Patient) -> bool:
    """Does this machine have a store of models?"""
    return (patient.root / patient.scope.models.relative_to("/")).is_dir()


def check_store(patient: Patient) -> Iterator[Complaint]:
    """Is the file system of the store nearly full?"""
    store = patient.scope.models
    space = os.statvfs(patient.root / store.relative_to("/"))
    free, total = space.f_bavail * space.f_frsize, space.f_blocks * space.f_frsize
    if free < min(ROOM, SHARE * total):
        yield Complaint(
            f"the disk of {store} is nearly full: {shown_size(free)} of {shown_size(total)} are free",
            hint=f"df -h {store}; {patient.scope.rbeectl('model list')}",
        )
