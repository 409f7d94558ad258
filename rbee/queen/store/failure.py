"""Explains why the catalog's file cannot be used (damage, a lock, a full disk), with a cure."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path

from rbee import catalogfile
from rbee.catalogfile import LOGS, log_of
from rbee.errors import CatalogFailed, CatalogUnusable, RbeeError
from rbee.files import remount, trouble
from rbee.scope import Scope

Kind = type[CatalogFailed] | type[CatalogUnusable]


def explain(
    kind: Kind, path: Path, error: sqlite3.Error | OSError, scope: Scope, *, way_out: str | None = None
) -> RbeeError:
    """Return the error to raise for one of SQLite or the operating system; `way_out` is the hint for damage.

    It may write a small file to find the cause, and blocks as long as the disk does.
    """
    if catalogfile.is_damage(error):
        return kind(f"{path} is damaged or not a hive catalog: {error}", hint=way_out)
    if catalogfile.error_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        if (lack := _lack_of(path.parent)) is not None:
            return catalogfile.no_place(kind, path, lack)
        return kind(f"{path} is kept locked by another process ({error})", hint=scope.doctor)
    folder = path.parent
    if catalogfile.error_code(error) == sqlite3.SQLITE_FULL:
        cause: OSError | None = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    else:
        # SQLite itself reports only 'disk I/O error' or 'unable to open database file'.
        cause = trouble(folder)
    known = _refused_by_disk(kind, path, cause, scope) or _refused_by_mode(kind, path, scope)
    if known is not None:
        return known
    if cause is None and (lack := _lack_of(folder)) is not None:
        return catalogfile.no_place(kind, path, lack)
    reason = error if cause is None else cause.strerror
    return kind(
        f"{path} cannot be used: {reason}", hint=f"{scope.as_root(f'ls -la {folder}')}\ndf -h {folder}"
    )


def _refused_by_disk(kind: Kind, path: Path, cause: OSError | None, scope: Scope) -> RbeeError | None:
    folder = path.parent
    number = cause.errno if cause is not None else 0
    if number in (errno.ENOSPC, errno.EDQUOT):
        return kind(
            f"the disk is full, and {path} cannot be written: make room, then ask again",
            hint=f"df -h {folder}",
        )
    if number == errno.EROFS:
        return kind(
            f"{path} cannot be written: {folder} is read-only", hint=_cure_for_read_only(folder, os.environ)
        )
    if number in (errno.ENOENT, errno.ENOTDIR):
        return kind(
            f"{path} cannot be made: there is no folder {folder}",
            hint=scope.as_root(f"install -d -o {scope.queen_user} -g {scope.queen_user} -m 0700 {folder}"),
        )
    return None


def _refused_by_mode(kind: Kind, path: Path, scope: Scope) -> RbeeError | None:
    folder = path.parent
    for one in (folder, path, *(log_of(path, suffix) for suffix in (*LOGS, "-shm"))):
        if one.exists() and not os.access(one, os.R_OK | os.W_OK):
            mode = "0700" if one is folder else "0600"
            own, permit = f"chown {scope.queen_user}: {one}", f"chmod {mode} {one}"
            return kind(
                f"{path} cannot be used: {one} is not open to the queen",
                hint=f"{scope.as_root(own)}\n{scope.as_root(permit)}",
            )
    return None


def _lack_of(folder: Path) -> str | None:
    try:
        return catalogfile.lack_of(folder)
    except OSError:
        return None


def _cure_for_read_only(folder: Path, environ: Mapping[str, str]) -> str:
    if environ.get("STATE_DIRECTORY", str(folder)) != str(folder):
        return "man rbee.conf"  # Database= explains which folders the service may write to
    return remount(folder)
