"""Drop-ins of units that rbeectl writes, as root."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rbee.files import explained, write_whole
from rbee.scope import Scope
from rbee.systemd.bus import Bus


class Dropin(NamedTuple):
    """The drop-in `name` of a unit, such as 50-listen.conf."""

    unit: str
    name: str
    scope: Scope

    @property
    def path(self) -> Path:
        """Its file."""
        return self.scope.dropins / f"{self.unit}.d" / self.name

    def read(self) -> bytes | None:
        """Its content; None if there is none."""
        with explained(self.path, "read"):
            try:
                return self.path.read_bytes()
            except FileNotFoundError:
                return None

    def put(self, bus: Bus, content: bytes | None) -> None:
        """Write it, or remove it, and have systemd read it."""
        with explained(self.path, "written"):
            if content is None:
                self.path.unlink(missing_ok=True)
            else:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(self.path, content, mode=0o644)
        bus.reload()
