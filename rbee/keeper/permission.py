"""Why somebody was refused, and what to do: the same words whether D-Bus or the socket said no."""

from __future__ import annotations

import grp
import os
import pwd

from rbee.errors import NotPermitted

GROUP = "rbee"


def explain(refusal: NotPermitted) -> NotPermitted:
    """The refusal again, with the cure that fits this user."""
    user = _user_name()
    try:
        group = grp.getgrnam(GROUP)
    except KeyError:
        return NotPermitted(
            f"{refusal.message}; there is no group {GROUP} on this machine",
            hint="The package rbee-queen makes it: sudo apt install rbee",
        )
    if group.gr_gid in {os.getegid(), *os.getgroups()}:
        return NotPermitted(
            f"{refusal.message}, though you are in group {GROUP}",
            hint="systemctl status polkit queen-rbee.socket",
        )
    if user in group.gr_mem or _primary_group(user) == group.gr_gid:
        return NotPermitted(
            f"you were added to group {GROUP}, and this login does not know it yet",
            hint=f"newgrp {GROUP} (or log in again)",
        )
    return NotPermitted(
        f"{refusal.message}: only group {GROUP} and root may do this, and {user} is not in it",
        hint=f"sudo adduser {user} {GROUP}, then log in again",
    )


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _primary_group(user: str) -> int | None:
    try:
        return pwd.getpwnam(user).pw_gid
    except KeyError:
        return None
