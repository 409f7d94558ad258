"""Keys and certificates, which only root may read: are they valid by this machine's clock?"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from rbee import catalogfile
from rbee.errors import BadConfig
from rbee.files import as_owner_of, read_regular
from rbee.keeper.doctor.catalog import catalog_path
from rbee.keeper.doctor.check import Command, Complaint
from rbee.keeper.doctor.patient import Patient
from rbee.keeper.local_hive import MEMBERSHIPS, state_folder
from rbee.scope import QUEEN_UNIT, REMOTE, Scope

KEYS_LIMIT = 65536
"""Bytes of a certificate's file that are read at most."""


def check_keys(patient: Patient) -> Iterator[Complaint]:
    """The queen's keys, and the certificate of a hive that has joined a queen on another machine."""
    if not patient.is_root:
        if patient.programs:
            yield Complaint(
                "the keys are not checked: only root may read them",
                hint=patient.scope.doctor,
                is_fault=False,
            )
        return
    yield from complain_of_queens_keys(patient.root, patient.scope)
    membership = state_folder(patient.root, patient.scope) / MEMBERSHIPS[0]
    yield from complain_of_membership(membership, patient.scope)


def complain_of_queens_keys(root: Path, scope: Scope) -> Iterator[Complaint]:
    """Certificates that are not valid by this clock: the queen runs, but no hive can join."""
    keys = root / scope.queen_state.relative_to("/") / "tls"
    given = root / scope.credentials.relative_to("/") / QUEEN_UNIT / "rbee.ca.crt"
    ca = given if given.exists() else keys / "ca.crt"
    if (fault := _fault_of(ca)) is not None:
        yield _of_ca(fault, root, scope, is_given=ca == given)
    elif (fault := _fault_of(keys / "queen.crt")) is not None:
        yield Complaint(
            f"the queen's certificate {fault}; the queen makes another when it starts",
            (scope.command("systemctl", "try-restart", QUEEN_UNIT),),
        )


def _of_ca(fault: str, root: Path, scope: Scope, *, is_given: bool) -> Complaint:
    text = f"the certificate of the queen's CA {fault}; until then no hive can join or connect"
    if is_given:
        return Complaint(text, hint="It is the administrator's own: man queen-rbee.service, KEYS")
    make_anew: tuple[Command, ...] = (
        ("rm", "-r", f"{scope.queen_state}/tls"),
        scope.command("systemctl", "try-restart", QUEEN_UNIT),
    )
    members = _members(root, scope)
    if members == 0:
        return Complaint(
            f"{text}. No hive has joined, so making new keys only invalidates existing tokens", make_anew
        )
    if members is None:
        joined = "It is unknown which hives have joined"
    else:
        joined = "1 hive has joined" if members == 1 else f"{members} hives have joined"
    commands = "; ".join(scope.as_root(" ".join(command)) for command in make_anew)
    return Complaint(
        f"{text}. {joined}, and with new keys each has to join again",
        hint=f"Set the clock right (timedatectl), or: {commands}; then on each hive: {REMOTE.rejoin}",
    )


def complain_of_membership(membership: Path, scope: Scope) -> Iterator[Complaint]:
    """A hive's certificate that is not valid by this clock."""
    if (fault := _fault_of(membership)) is not None:
        yield Complaint(
            f"the certificate of this hive {fault}: its queen refuses it",
            hint=f"Set the clock right (timedatectl), or, if the queen's was wrong: {scope.rejoin}",
        )


def _fault_of(path: Path) -> str | None:
    """Why the certificate in a file is not valid now; None if it is, or if it cannot be read."""
    try:
        content = read_regular(path, KEYS_LIMIT).decode()
    except (OSError, ValueError):
        return None
    from rbee import tls  # with cryptography, which no other check needs

    try:
        # At the start of a line: the first line of a membership contains the CA's certificate.
        return tls.fault_of(content[f"\n{content}".index("\n-----BEGIN CERTIFICATE") :])
    except ValueError:
        return None


def _members(root: Path, scope: Scope) -> int | None:
    """How many hives have joined with these keys; None if the catalog cannot be read."""
    try:
        catalog = catalog_path(root, scope)
        if not catalog.exists():
            return 0
        with as_owner_of(catalog.parent):
            return catalogfile.members(catalog)
    except (BadConfig, sqlite3.Error, OSError):
        return None
