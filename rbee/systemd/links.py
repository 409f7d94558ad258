"""Which units run, by links that systemd makes for journald: without D-Bus, and for any user."""

from __future__ import annotations

import os
from pathlib import Path

from rbee.scope import SYSTEM, Scope


def running(pattern: str, root: Path = Path("/"), scope: Scope = SYSTEM) -> list[str]:
    """The units that match a pattern of glob(7) and have a process."""
    folder = root / scope.runtime.parent.relative_to("/") / "systemd/units"
    return sorted(link.name.removeprefix("invocation:") for link in folder.glob(f"invocation:{pattern}"))


def invocation_of(unit: str, root: Path = Path("/"), scope: Scope = SYSTEM) -> str | None:
    """The invocation ID of another unit while it runs, from a link that systemd makes for journald."""
    folder = root / scope.runtime.parent.relative_to("/") / "systemd/units"
    try:
        return os.readlink(folder / f"invocation:{unit}")
    except OSError:
        return None
