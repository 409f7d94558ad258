"""The hive of this machine: of which queen it is, whether they are connected, and what helps if not.

A queen on another machine is known by the hive's membership, which root alone may read, or by what the
hive that runs says in its unit's status.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from rbee import hivestatus
from rbee.errors import BadInput, NotRunning, with_packages
from rbee.files import as_owner_of, read_regular
from rbee.hivestatus import QueenLink
from rbee.scope import HIVE_UNIT, REDIAL_UNIT
from rbee.systemd.bus import Bus
from rbee.systemd.unit import UnitState
from rbee.wire.codec import decode
from rbee.wire.types import Host, Name, Port

FOLDER = Path("var/lib/rbee-hive")
MEMBERSHIPS = ("membership", "membership.new", "membership.old")
"""That of now, and those of a hive that was cut off while it joined (rbee.hive.membership)."""

MEMBERSHIP_LIMIT = 64 * 1024
"""Bytes of a membership that are read, which has some 4,000."""

JOIN = "sudo rbeectl join QUEEN:8500 --token TOKEN"
START = f"sudo systemctl start {HIVE_UNIT}"


@dataclass(frozen=True, slots=True)
class Membership:
    """What a hive has joined: its name, where its queen listens, and the certificate of her CA, in PEM.

    The certificate is '' where a file has none; then nobody can use it.
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
    """The first line of a membership's file, with its '# ' or without; ValueError if it is none."""
    try:
        told = json.loads(head.removeprefix("# "))
        return Membership(
            decode(Name, told["hive_id"]), decode(Host, told["host"]), decode(Port, told["port"]),
            str(told.get("ca", "")),
        )  # fmt: skip
    except (KeyError, TypeError, BadInput) as error:
        raise ValueError(f"it is not a membership: {error}") from error


def read_membership(path: Path) -> Membership:
    """That of a file, which belongs to user rbee-hive. Raises OSError and ValueError."""
    with as_owner_of(path.parent):
        head = read_regular(path, MEMBERSHIP_LIMIT).partition(b"\n")[0]
    return parse_membership(head.decode())


@dataclass(frozen=True, slots=True)
class RemoteQueen:
    """`queen` is HOST:PORT; `hive_id` None if this user may not read which hive it is."""

    queen: str
    hive_id: str | None = None

    def __str__(self) -> str:
        hive = f"the hive {self.hive_id}" if self.hive_id else "a hive"
        return f"{hive} of the queen at {self.queen}"


def queen_dialled(hive: UnitState) -> RemoteQueen | None:
    """The queen on another machine that a running hive says that it dials."""
    link = hivestatus.read(hive.status_text) if hive.is_active else None
    return RemoteQueen(link.queen) if link is not None and link.is_remote else None


@dataclass(frozen=True, slots=True)
class LocalHive:
    """`redial` waits, while it is active, for a queen who has shut this hive down."""

    hive: UnitState
    redial: UnitState

    @classmethod
    def find(cls, bus: Bus) -> LocalHive:
        return cls(bus.state(HIVE_UNIT), bus.state(REDIAL_UNIT))

    @property
    def is_installed(self) -> bool:
        return self.hive.load != "not-found"

    @property
    def is_waiting(self) -> bool:
        return self.redial.active in ("activating", "active")

    @property
    def link(self) -> QueenLink | None:
        """To its queen on another machine; None where nothing says that it has one."""
        found = hivestatus.read(self.redial.status_text if self.is_waiting else self.hive.status_text)
        return found if found is not None and found.is_remote else None

    @property
    def is_connected(self) -> bool:
        return self.hive.is_active and self.link is not None and self.link.is_connected

    def remote_queen(self, root: Path = Path("/")) -> RemoteQueen | None:
        """By its membership, where this user may read it, or by what the running hive says."""
        try:
            membership = read_membership(root / FOLDER / MEMBERSHIPS[0])
        except (OSError, ValueError):
            return queen_dialled(self.hive)
        return RemoteQueen(membership.queen, membership.hive_id)

    def describe(self) -> str:
        """What is between this hive and its queen, in a sentence without its subject."""
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
        """What helps one that is not connected; None where it helps itself."""
        if self.hive.is_active:
            return JOIN if self.link is None else None
        return None if self.is_waiting else f"{START}\nIf it has joined no queen yet: {JOIN}"


def no_queen(bus: Bus) -> NotRunning:
    """Why what only a queen does cannot be done on a machine without one, and where it can."""
    hive = LocalHive.find(bus)
    if hive.link is not None:
        where = f"Type it on the machine of this hive's queen, {hive.link.queen}"
    elif hive.is_installed:
        where = f"Type it on the queen's machine; to make this one a hive of hers: {JOIN}"
    else:
        where = "Type it on the queen's machine"
    return NotRunning(
        "there is no queen on this machine", hint=f"{where}\nTo have one here, {with_packages('rbee')}"
    )
