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
from rbee.scope import Scope

LOG_IN = "Log in again afterwards: a login keeps the groups that it began with."
Standing = Literal["in", "not-yet", "out", "no-group"]


def new_login(group: str) -> str:
    """The hint for a login that is older than the user's membership in a group."""
    return f"newgrp {group}\nOr log in again"


def standing(name: str, user: str | None = None) -> Standing:
    """Whether a user is in a group; None asks about this process.

    'not-yet' means that the user database has the membership, and this login does not.
    """
    try:
        group = grp.getgrnam(name)
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


def explain(refusal: NotPermitted, scope: Scope) -> NotPermitted:
    """The refusal again, with the cure that fits this user."""
    group = scope.group
    if group is None:
        return NotPermitted(refusal.message, hint=scope.doctor)
    match standing(group):
        case "no-group":
            return NotPermitted(
                f"{refusal.message}; there is no group {group} on this machine",
                # The package rbee-queen makes it. Without a queen there is no such group, and only root may.
                hint=scope.rbeectl(shlex.join(sys.argv[1:]), as_root=True),
            )
        case "in":
            return NotPermitted(f"{refusal.message}, though you are in group {group}", hint=scope.doctor)
        case "not-yet":
            return NotPermitted(
                f"you were added to group {group}, and this login does not know it yet",
                hint=new_login(group),
            )
        case "out":
            user = user_name()
            return NotPermitted(
                f"{refusal.message}: only group {group} and root may do this, and {user} is not in it",
                hint=f"{scope.as_root(f'adduser {user} {group}')}\n{LOG_IN}",
            )


@contextmanager
def explained(scope: Scope) -> Iterator[None]:
    """Raise a refusal of systemd or of the queen's socket with the cure that fits this user."""
    try:
        yield
    except NotPermitted as error:
        raise explain(error, scope) from error


def user_name() -> str:
    """The user that this process runs as; the uid, if it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
