"""A machine that has a hive, and no queen: whose hive it is, as far as anybody may know."""

from __future__ import annotations

from dataclasses import dataclass

from rbee.errors import NotRunning, with_packages
from rbee.hivestatus import QueenLink, read
from rbee.scope import HIVE_UNIT, REDIAL_UNIT
from rbee.systemd.bus import Bus
from rbee.systemd.unit import UnitState

JOIN = "sudo rbeectl join QUEEN:8500 --token TOKEN"
START = f"sudo systemctl start {HIVE_UNIT}"


@dataclass(frozen=True, slots=True)
class LoneHive:
    """`redial` waits, while it is active, for a queen who has shut this hive down."""

    hive: UnitState
    redial: UnitState

    @classmethod
    def find(cls, bus: Bus) -> LoneHive:
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
        found = read(self.redial.status_text if self.is_waiting else self.hive.status_text)
        return found if found is not None and found.is_remote else None

    @property
    def is_connected(self) -> bool:
        return self.hive.is_active and self.link is not None and self.link.is_connected

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
    lone = LoneHive.find(bus)
    if lone.link is not None:
        where = f"Type it on the machine of this hive's queen, {lone.link.queen}"
    elif lone.is_installed:
        where = f"Type it on the queen's machine; to make this one a hive of hers: {JOIN}"
    else:
        where = "Type it on the queen's machine"
    return NotRunning(
        "there is no queen on this machine", hint=f"{where}\nTo have one here, {with_packages('rbee')}"
    )
