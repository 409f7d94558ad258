"""The hive of this machine: which queen it has, whether they are connected, and the cure if not.

The address of a queen on another machine is in the hive's membership, which only root may read, and in
the status line of the hive's unit while it runs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from rbee import hivestatus
from rbee.errors import BadInput, NotRunning, with_packages
from rbee.files import as_owner_of, read_regular
from rbee.hivestatus import QueenLink
from rbee.scope import HIVE_UNIT, REDIAL_UNIT, SYSTEM, Scope
from rbee.systemd.bus import Bus
from rbee.systemd.unit import UnitState
from rbee.wire.codec import decode
from rbee.wire.types import Host, Name, Port

MEMBERSHIPS = ("membership", "membership.new", "membership.old")
"""The current one, and those of a hive that was interrupted while it joined (rbee.hive.membership)."""

MEMBERSHIP_LIMIT = 64 * 1024
"""Bytes of a membership that are read; it has about 4,000."""


class Membership(NamedTuple):
    """The hive's name, the address at which its queen listens, and the certificate of the queen's CA, in PEM.

    `ca` is '' if the file has none; such a membership cannot be used.
    """

    hive_id: str
    host: str
    port: int
    ca: str

    @property
    def queen(self) -> str:
        """HOST:PORT."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_membership(head: str) -> Membership:
    """Parse the first line of a membership's file, with its '# ' or without; ValueError if not valid."""
    try:
        fields = json.loads(head.removeprefix("# "))
        return Membership(
            decode(Name, fields["hive_id"]), decode(Host, fields["host"]), decode(Port, fields["port"]),
            str(fields.get("ca", "")),
        )  # fmt: skip
    except (KeyError, TypeError, BadInput) as error:
        raise ValueError(f"it is not a membership: {error}") from error


def state_folder(root: Path, scope: Scope) -> Path:
    """The hive's state directory, below the root of a file system."""
    return root / scope.hive_state.relative_to("/")


def read_membership(path: Path) -> Membership:
    """Read the membership in a file of user rbee-hive. Raises OSError, and ValueError if it is not valid."""
    with as_owner_of(path.parent):
        head = read_regular(path, MEMBERSHIP_LIMIT).partition(b"\n")[0]
    return parse_membership(head.decode())


class RemoteQueen(NamedTuple):
    """`queen` is HOST:PORT; `hive_id` is None if this user may not read the membership."""

    queen: str
    hive_id: str | None = None

    def __str__(self) -> str:
        hive = f"the hive {self.hive_id}" if self.hive_id else "a hive"
        return f"{hive} of the queen at {self.queen}"


def queen_dialled(hive: UnitState) -> RemoteQueen | None:
    """The queen on another machine that a running hive dials, from its unit's status line."""
    link = hivestatus.read(hive.status_text) if hive.is_active else None
    return RemoteQueen(link.queen) if link is not None and link.is_remote else None


class LocalHive(NamedTuple):
    """`redial` is the unit that waits for the queen to return after it has shut this hive down."""

    hive: UnitState
    redial: UnitState
    scope: Scope = SYSTEM

    @classmethod
    def find(cls, bus: Bus) -> LocalHive:
        """The state of this machine's hive, as systemd reports it."""
        return cls(bus.state(HIVE_UNIT), bus.state(REDIAL_UNIT), bus.scope)

    @property
    def is_installed(self) -> bool:
        """Does systemd have the hive's unit?"""
        return self.hive.load != "not-found"

    @property
    def is_waiting(self) -> bool:
        """Does it wait for a queen that has shut it down?"""
        return self.redial.active in ("activating", "active")

    @property
    def link(self) -> QueenLink | None:
        """Its link to a queen on another machine; None if no status line names one."""
        link = hivestatus.read(self.redial.status_text if self.is_waiting else self.hive.status_text)
        return link if link is not None and link.is_remote else None

    @property
    def is_connected(self) -> bool:
        """Is it connected to its queen on another machine?"""
        return self.hive.is_active and self.link is not None and self.link.is_connected

    def remote_queen(self, root: Path = Path("/")) -> RemoteQueen | None:
        """From its membership if this user may read it, else from the status line of the running hive."""
        try:
            membership = read_membership(state_folder(root, self.scope) / MEMBERSHIPS[0])
        except (OSError, ValueError):
            return queen_dialled(self.hive)
        return RemoteQueen(membership.queen, membership.hive_id)

    def describe(self) -> str:
        """Its connection to its queen, as a sentence without a subject."""
        link = self.link
        if self.is_connected:
            assert link is not None
            return f"is connected to its queen at {link.queen}"
        if self.is_waiting:
            return f"waits for its queen{f' at {link.queen}' if link else ''}, who has shut it down"
        if self.hive.is_active:
            if link is None:
                return "has joined no queen"
            why = f": {link.trouble}" if link.trouble else ""
            return f"is not connected to its queen at {link.queen}{why}"
        return f"does not run: {HIVE_UNIT} is {self.hive.active}"

    def hint(self) -> str | None:
        """The cure for a hive that is not connected; None if it will reconnect by itself."""
        if self.hive.is_active:
            return self.scope.rejoin if self.link is None else None
        if self.is_waiting:
            return None
        start = self.scope.systemctl(f"start {HIVE_UNIT}", as_root=True)
        return f"{start}\nIf it has joined no queen yet: {self.scope.rejoin}"


def no_queen(bus: Bus) -> NotRunning:
    """The error on a machine without a queen; its hint says where to type the command instead."""
    hive = LocalHive.find(bus)
    if hive.link is not None:
        where = f"Type it on the machine of this hive's queen, {hive.link.queen}"
    elif hive.is_installed:
        where = f"Type it on the queen's machine; to make this machine one of its hives: {bus.scope.rejoin}"
    else:
        where = "Type it on the queen's machine"
    return NotRunning(
        "there is no queen on this machine", hint=f"{where}\nTo have one here, {with_packages('rbee')}"
    )
