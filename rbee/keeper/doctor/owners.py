"""Users and groups by name, and the owner and mode of a file as text."""

from __future__ import annotations

import grp
import os
import pwd
import stat


def has_user(name: str) -> bool:
    """Does the user database have this user?"""
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def has_group(name: str) -> bool:
    """Does the group database have this group?"""
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def access_of(status: os.stat_result) -> str:
    """Such as 'root:rbee with mode 0660'."""
    owner = f"{user_name(status.st_uid)}:{group_name(status.st_gid)}"
    return f"{owner} with mode {stat.S_IMODE(status.st_mode):04o}"


def user_name(uid: int) -> str:
    """The name of a user; the number if there is none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """The name of a group; the number if there is none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
