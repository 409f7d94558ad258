"""This machine's hive must have one queen: here, or on another machine."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from rbee import catalogfile
from rbee.errors import BadConfig
from rbee.keeper.doctor.catalog import catalog_path
from rbee.keeper.doctor.check import NO_BUS, Command, Complaint
from rbee.keeper.doctor.patient import HIVE, QUEEN, Patient
from rbee.keeper.local_hive import FOLDER, MEMBERSHIPS, LocalHive, RemoteQueen
from rbee.scope import HIVE_UNIT, SYSTEM
from rbee.wire.types import LOCALHOST


def check_queens(patient: Patient) -> Iterator[Complaint]:
    """Has the hive of a machine with a queen joined another queen?"""
    if patient.bus is None:
        yield NO_BUS
        return
    if not (patient.is_installed(QUEEN) and patient.is_installed(HIVE)):
        return
    remote = LocalHive.find(patient.bus).remote_queen(patient.root)
    if remote is not None:
        yield complain_of_two_queens(remote, patient.root, is_root=patient.is_root)


def complain_of_two_queens(remote: RemoteQueen, root: Path, *, is_root: bool) -> Complaint:
    """A machine with a queen whose hive has joined another: no queen gets its heartbeats.

    There is a cure if localhost has been added to the queen here: then this queen is the desired one.
    Nothing is lost: the membership is renamed.
    """
    text = f"this machine has a queen of its own, and its hive is {remote}: neither gets its heartbeats"
    leave = "To leave the hive with the other queen: sudo apt remove rbee-queen"
    there = [name for name in MEMBERSHIPS if (root / FOLDER / name).exists()] if is_root else []
    put_aside: tuple[Command, ...] = tuple(
        ("runuser", "-u", HIVE.user, "--", "mv", "-T", f"/{FOLDER}/{name}", f"/{FOLDER}/{name}.aside")
        for name in there
    )
    if put_aside and _is_desired(root):
        return Complaint(text, (*put_aside, ("systemctl", "try-restart", HIVE_UNIT)), hint=leave)
    return Complaint(
        text,
        hint=f"{leave}\nTo make it the hive of the queen here: rbeectl add-hive {LOCALHOST}; "
        + SYSTEM.rbeectl("doctor --fix", as_root=True),
    )


def _is_desired(root: Path) -> bool:
    """Has somebody added this machine to the queen here?"""
    try:
        catalog = catalog_path(root)
        return catalog.exists() and catalogfile.has_hive(catalog, LOCALHOST)
    except (BadConfig, sqlite3.Error):
        return False
