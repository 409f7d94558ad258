"""The word that a queen leaves for the next boot.

A file in her state directory, there as long as a hive is wanted: at boot systemd starts
queen-rbee-resume.service where it finds the file (ConditionPathExists=), and that wakes
the queen. A queen who is told to stop takes it away (queen-rbee-stopped, ExecStopPost=);
one who is killed, or goes down with the machine, leaves it.
"""

from __future__ import annotations

from pathlib import Path

from rbee.files import sync_folder


class BootMarker:
    """Touches the disk only where the answer has changed. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_there: bool | None = None

    def set(self, is_wanted: bool) -> None:
        """Have the queen woken at the next boot, or not; it has reached the disk on return."""
        if is_wanted == self._is_there:
            return
        if is_wanted:
            self._path.touch(mode=0o600)
        else:
            self._path.unlink(missing_ok=True)
        sync_folder(self._path.parent)
        self._is_there = is_wanted
