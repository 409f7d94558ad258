"""Keys and certificates, which root alone may look at: are they valid by this machine's clock?"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from rbee import catalogfile
from rbee.errors import BadConfig
from rbee.files import as_owner_of, read_regular
from rbee.keeper.doctor.catalog import STATE_DIRECTORY, catalog_path
from rbee.keeper.doctor.check import Command, Complaint
from rbee.keeper.doctor.patient import Patient
from rbee.keeper.local_hive import FOLDER, MEMBERSHIPS
from rbee.scope import QUEEN_UNIT

KEYS = STATE_DIRECTORY / "tls"

KEYS_LIMIT = 65536
"""Bytes of a certificate's file that are read."""

CREDENTIALS = Path("run/credentials") / QUEEN_UNIT

MEMBERSHIP = FOLDER / MEMBERSHIPS[0]


def check_keys(patient: Patient) -> Iterator[Complaint]:
    """The queen's keys, and the certificate of a hive that has joined one elsewhere."""
    if not patient.is_root:
        if patient.programs:
            yield Complaint(
                "the keys are not looked at: that takes root", hint="sudo rbeectl doctor", is_fault=False
            )
        return
    yield from complain_of_queens_keys(patient.root)
    yield from complain_of_membership(patient.root / MEMBERSHIP)


def complain_of_queens_keys(root: Path) -> Iterator[Complaint]:
    """A CA that was made while the clock was ahead: the queen runs on, and nobody can join."""
    given = root / CREDENTIALS / "rbee.ca.crt"
    ca = given if given.exists() else root / KEYS / "ca.crt"
    if (fault := _fault_of(ca)) is not None:
        yield _of_ca(fault, root, is_given=ca == given)
    elif (fault := _fault_of(root / KEYS / "queen.crt")) is not None:
        yield Complaint(
            f"the queen's certificate {fault}; she makes another when she starts",
            (("systemctl", "try-restart", QUEEN_UNIT),),
        )


def _of_ca(fault: str, root: Path, *, is_given: bool) -> Complaint:
    told = f"the certificate of the queen's CA {fault}; until then no hive can join her or connect"
    if is_given:
        return Complaint(told, hint="It is the administrator's own: man queen-rbee.service, KEYS")
    make_anew: tuple[Command, ...] = (
        ("rm", "-r", f"/{KEYS}"),
        ("systemctl", "try-restart", QUEEN_UNIT),
    )
    members = _members(root)
    if members == 0:
        return Complaint(f"{told}. Nobody has joined: new keys cost the tokens that were made", make_anew)
    if members is None:
        joined = "it is not known which hives have joined"
    else:
        joined = "1 has joined" if members == 1 else f"{members} have joined"
    commands = "; ".join(f"sudo {' '.join(command)}" for command in make_anew)
    return Complaint(
        f"{told}. Of its hives {joined}, and with new keys each has to join again",
        hint=f"Set the clock right (timedatectl), or: {commands}; then on each hive: "
        "sudo rbeectl join QUEEN:8500 --token TOKEN",
    )


def complain_of_membership(membership: Path) -> Iterator[Complaint]:
    if (fault := _fault_of(membership)) is not None:
        yield Complaint(
            f"the certificate of this hive {fault}: its queen does not take it",
            hint="Set the clock right (timedatectl); or, when the queen's is: "
            "sudo rbeectl join QUEEN:8500 --token TOKEN",
        )


def _fault_of(path: Path) -> str | None:
    """Of a certificate, below whatever else is in its file; what cannot be read is not judged here."""
    try:
        content = read_regular(path, KEYS_LIMIT).decode()
    except (OSError, ValueError):
        return None
    from rbee import tls  # with cryptography, which no other check needs

    try:
        # Not in a line: a membership's first has the CA's, too.
        return tls.fault_of(content[f"\n{content}".index("\n-----BEGIN CERTIFICATE") :])
    except ValueError:
        return None


def _members(root: Path) -> int | None:
    """How many hives have joined with these keys; None where the catalog does not tell."""
    try:
        catalog = catalog_path(root)
        if not catalog.exists():
            return 0
        with as_owner_of(catalog.parent):
            return catalogfile.members(catalog)
    except (BadConfig, sqlite3.Error, OSError):
        return None
