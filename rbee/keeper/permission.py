"""Why somebody was refused, and what to do: the same words whether D-Bus or the socket said no."""

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

GROUP = "rbee"

LOG_IN = "Log in again afterwards: a login knows the groups that there were when it began."
NEW_LOGIN = f"newgrp {GROUP}\nOr log in again"

Standing = Literal["in", "not-yet", "out", "no-group"]


def standing(user: str | None = None) -> Standing:
    """Where a user stands with the group; None is this process, whose login may be older than the group.

    'not-yet' is a login that does not know of a membership that the user database has.
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
    """The groups that a user gets at the next login; none of one whom no database knows.

    getgrouplist(3) asks each source of nsswitch.conf(5). A group's own list of members does not have those
    whose membership only a directory (SSSD, LDAP) knows, nor those whose primary group it is.
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
                # The package rbee-queen makes it: beside a hive alone there is none, and root is who may.
                hint=shlex.join(["sudo", "rbeectl", *sys.argv[1:]]),
            )
        case "in":
            return NotPermitted(
                f"{refusal.message}, though you are in group {GROUP}", hint="sudo rbeectl doctor"
            )
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
    """What systemd or the queen's socket refuses within it, with the cure that fits this user."""
    try:
        yield
    except NotPermitted as error:
        raise explain(error) from error


def user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
