"""Users and groups by name, and whose a file is, in a phrase."""

from __future__ import annotations

import grp
import os
import pwd
import stat


def has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def access_of(found: os.stat_result) -> str:
    return f"{user_name(found.st_uid)}:{group_name(found.st_gid)} with mode {stat.S_IMODE(found.st_mode):04o}"


def user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
