"""This machine's hive must have one queen: here, or on another machine."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from rbee import catalogfile
from rbee.errors import BadConfig
from rbee.keeper.doctor.catalog import catalog_path
from rbee.keeper.doctor.check import Command, Complaint, no_bus
from rbee.keeper.doctor.patient import Patient
from rbee.keeper.local_hive import MEMBERSHIPS, LocalHive, RemoteQueen, state_folder
from rbee.scope import HIVE_UNIT, SYSTEM, Scope
from rbee.wire.types import LOCALHOST


def check_queens(patient: Patient) -> Iterator[Complaint]:
    """Has the hive of a machine with a queen joined another queen?"""
    if patient.bus is None:
        yield no_bus(patient.scope)
        return
    if patient.programs != [patient.queen, patient.hive]:
        return
    remote = LocalHive.find(patient.bus).remote_queen(patient.root)
    if remote is not None:
        yield complain_of_two_queens(remote, patient.root, patient.scope, is_root=patient.is_root)


def complain_of_two_queens(
    remote: RemoteQueen, root: Path, scope: Scope = SYSTEM, *, is_root: bool
) -> Complaint:
    """A machine with a queen whose hive has joined another: no queen gets its heartbeats.

    There is a cure if localhost has been added to the queen here: then this queen is the desired one.
    Nothing is lost: the membership is renamed.
    """
    text = (
        f"this machine has a queen of its own, but its hive belongs to the queen at {remote.queen}; "
        "neither queen receives its heartbeats"
    )
    leave = "To leave the hive with the other queen: sudo apt remove rbee-queen"
    folder, there = scope.hive_state, state_folder(root, scope)
    names = [name for name in MEMBERSHIPS if (there / name).exists()] if is_root else []
    put_aside: tuple[Command, ...] = tuple(
        ("runuser", "-u", scope.hive_user, "--", "mv", "-T", f"{folder}/{name}", f"{folder}/{name}.aside")
        for name in names
    )
    if put_aside and _is_desired(root, scope):
        restart = scope.command("systemctl", "try-restart", HIVE_UNIT)
        return Complaint(text, (*put_aside, restart), hint=leave)
    add, fix = scope.rbeectl(f"add-hive {LOCALHOST}"), scope.rbeectl("doctor --fix", as_root=True)
    return Complaint(text, hint=f"{leave}\nTo make it the hive of the queen here: {add}; {fix}")


def _is_desired(root: Path, scope: Scope) -> bool:
    """Has somebody added this machine to the queen here?"""
    try:
        catalog = catalog_path(root, scope)
        return catalog.exists() and catalogfile.has_hive(catalog, LOCALHOST)
    except (BadConfig, sqlite3.Error):
        return False
