"""Why a user was refused, and the cure: the same message for D-Bus and for the queen's socket."""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Literal

from rbee.errors import NotPermitted
from rbee.scope import SYSTEM

GROUP = SYSTEM.group or ""
"""Whose members may use the queen."""

LOG_IN = "Log in again afterwards: a login keeps the groups that it began with."
NEW_LOGIN = f"newgrp {GROUP}\nOr log in again"

Standing = Literal["in", "not-yet", "out", "no-group"]


def standing(user: str | None = None) -> Standing:
    """Whether a user is in the group; None asks for this process, whose login may be older than that.

    'not-yet' means that the user database has the membership, and this login does not.
    """
    try:
        group = grp.getgrnam(GROUP)
    except KeyError:
        return "no-group"
    if user is None and group.gr_gid in {os.getegid(), *os.getgroups()}:
        return "in"
    if group.gr_gid in groups_of(user_name() if user is None else user):
        return "not-yet" if user is None else "in"
    return "out"


def groups_of(user: str) -> Collection[int]:
    """The ids of the groups that a user gets at the next login; () for a user who does not exist.

    getgrouplist(3) asks each source of nsswitch.conf(5). A group's own list of members lacks memberships
    that only a directory (SSSD, LDAP) has, and the users whose primary group it is.
    """
    try:
        return os.getgrouplist(user, pwd.getpwnam(user).pw_gid)
    except KeyError:
        return ()


def explain(refusal: NotPermitted) -> NotPermitted:
    """The refusal again, with the cure that fits this user."""
    match standing():
        case "no-group":
            return NotPermitted(
                f"{refusal.message}; there is no group {GROUP} on this machine",
                # The package rbee-queen makes it. Without a queen there is no such group, and only root may.
                hint=SYSTEM.rbeectl(shlex.join(sys.argv[1:]), as_root=True),
            )
        case "in":
            return NotPermitted(f"{refusal.message}, though you are in group {GROUP}", hint=SYSTEM.doctor)
        case "not-yet":
            return NotPermitted(
                f"you were added to group {GROUP}, and this login does not know it yet",
                hint=NEW_LOGIN,
            )
        case "out":
            user = user_name()
            return NotPermitted(
                f"{refusal.message}: only group {GROUP} and root may do this, and {user} is not in it",
                hint=f"sudo adduser {user} {GROUP}\n{LOG_IN}",
            )


@contextmanager
def explained() -> Iterator[None]:
    """Raise a refusal of systemd or of the queen's socket with the cure that fits this user."""
    try:
        yield
    except NotPermitted as error:
        raise explain(error) from error


def user_name() -> str:
    """The user that this process runs as; the uid, if it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
