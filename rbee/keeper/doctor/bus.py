"""The bus, without which no program reaches systemd."""

from __future__ import annotations

import os
from pathlib import Path

from rbee.errors import RbeeError, TimedOut
from rbee.keeper.doctor.check import Complaint
from rbee.scope import SYSTEM, Scope


def complain_of_bus(error: RbeeError, root: Path, scope: Scope = SYSTEM) -> Complaint:
    """Why the bus cannot be used. Only the file system can be read to find out."""
    if not (root / "run/systemd/system").is_dir():
        return Complaint("this machine was not booted with systemd, which rbee needs")
    if isinstance(error, TimedOut):
        return Complaint(
            f"the {scope.kind} bus is there and does not answer ({error.message})",
            # No effect on a bus that is not stopped. It uses PID 1's own socket, so it works without the bus.
            (scope.command("systemctl", "kill", "--signal=CONT", "dbus.service"),),
            hint=scope.systemctl("status dbus", as_root=True),
        )
    units = ("dbus.socket", "dbus.service")
    cures = [
        scope.command("systemctl", "unmask", *flag, unit)
        for unit in units
        for flag, folder in (((), scope.dropins), (("--runtime",), scope.runtime_units))
        if is_masking(root / folder.relative_to("/") / unit)
    ]
    masked = " and masked" if cures else ""
    return Complaint(
        f"D-Bus is stopped{masked}: without it nobody can ask systemd to wake the queen or its hive",
        (*cures, scope.command("systemctl", "start", *units)),
    )


def is_masking(path: Path) -> bool:
    """Is it a link to /dev/null, by which systemd masks a unit?"""
    return path.is_symlink() and os.readlink(path) == os.devnull
