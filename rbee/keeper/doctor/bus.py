"""The system bus, without which no program reaches systemd."""

from __future__ import annotations

import os
from pathlib import Path

from rbee.errors import RbeeError, TimedOut
from rbee.keeper.doctor.check import Complaint


def complain_of_bus(error: RbeeError, root: Path) -> Complaint:
    """Why the bus cannot be used. Only the file system can be read to find out."""
    if not (root / "run/systemd/system").is_dir():
        return Complaint("systemd does not run this machine, and rbee is made of units of systemd")
    if isinstance(error, TimedOut):
        return Complaint(
            f"the system bus is there and does not answer ({error.message})",
            # No effect on a bus that is not stopped. It uses PID 1's own socket, so it works without the bus.
            (("systemctl", "kill", "--signal=CONT", "dbus.service"),),
            hint="sudo systemctl status dbus",
        )
    units = ("dbus.socket", "dbus.service")
    cures = [
        ("systemctl", "unmask", *flag, unit)
        for unit in units
        for flag, folder in (((), "etc"), (("--runtime",), "run"))
        if is_masking(root / folder / "systemd/system" / unit)
    ]
    masked = " and masked" if cures else ""
    return Complaint(
        f"D-Bus is stopped{masked}: without it nobody can ask systemd to wake the queen or its hive",
        (*cures, ("systemctl", "start", *units)),
    )


def is_masking(path: Path) -> bool:
    """Is it a link to /dev/null, by which systemd masks a unit?"""
    return path.is_symlink() and os.readlink(path) == os.devnull
