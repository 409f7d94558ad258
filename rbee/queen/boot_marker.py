"""Whether the next boot starts the queen.

The marker is a file in the queen's state directory that exists as long as any hive is desired: at boot
systemd starts queen-rbee-resume.service if the file exists (ConditionPathExists=), and that starts the
queen. A stop removes the file (queen-rbee-stopped, ExecStopPost=); a kill or a reboot leaves it.
"""

from __future__ import annotations

from pathlib import Path

from rbee.files import sync_folder


class BootMarker:
    """A file that exists or does not; the disk is touched only when that changes. Raises OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._is_there: bool | None = None

    def set(self, is_desired: bool) -> None:
        """Make the file exist or not; the change has reached the disk on return."""
        if is_desired == self._is_there:
            return
        if is_desired:
            self._path.touch(mode=0o600)
        else:
            self._path.unlink(missing_ok=True)
        sync_folder(self._path.parent)
        self._is_there = is_desired
