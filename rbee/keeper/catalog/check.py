"""Check whether a catalog is sound: a file, or the queen's own."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rbee import catalogfile
from rbee.catalogfile import Lock, log_of
from rbee.errors import BadInput, CatalogUnusable, NotPermitted, NotRunning, RbeeError
from rbee.files import FORBIDDEN, NO_ROOM, no_temporary_folder, reason, refused, temporary_folder
from rbee.keeper.catalog import location
from rbee.keeper.catalog.location import catalog_explained
from rbee.keeper.queen.queen import Queen
from rbee.scope import Scope
from rbee.wire.routes import QueenRoutes
from rbee.wire.types import LOCALHOST

if TYPE_CHECKING:
    from rbee.wire.catalog import CatalogReport


CHECK_TIMEOUT = 26.0
"""Seconds for the queen's own check, and for others that it may have to wait for: rbee.queen.store.copies."""


def check_own(queen: Queen) -> CatalogReport:
    """Check the queen's own catalog: by the queen if it is awake, else from the disk, as root.

    Raises NotPermitted for anybody else, NotRunning if there is no queen or no catalog yet, CatalogInUse, and
    as check_file() or the queen does.
    """
    state, scope = queen.present_state(), queen.work.scope
    if state == "awake":
        report: CatalogReport = queen.within(CHECK_TIMEOUT).ask(QueenRoutes.CHECK_CATALOG)
        return report
    path = location.own_path(scope)
    if not scope.is_owner():
        raise NotPermitted(
            f"the queen is {state}, and without it only root may read {path}",
            hint=scope.rbeectl("catalog check", as_root=True),
        )
    with catalog_explained(path, "read"):
        if not path.parent.is_dir() or not os.path.lexists(path):
            raise NotRunning(
                f"there is no catalog yet: the queen makes {path} when it first wakes",
                hint=scope.rbeectl(f"add-hive {LOCALHOST}"),
            )
        with Lock.take(path, is_shared=True, scope=scope):
            return check_file(path, scope)


def check_file(path: Path, scope: Scope) -> CatalogReport:
    """Check a file. If it has a log, a temporary copy of both is read, as SQLite has to write there.

    Raises BadInput if it is not a file, NotPermitted if only root may read it, CatalogUnusable if it is
    damaged or cannot be read, and RbeeError if there is no room for the copy.
    """
    try:
        if not path.is_file():
            raise _no_file(path)
        with ExitStack() as end:
            read, log = path, log_of(path)
            if log.exists() and log.stat().st_size:
                read = end.enter_context(temporary_folder("catalog-")) / "catalog.db"
                copy_aside(path, read)
                copy_aside(log, log_of(read))
            return catalogfile.check(read, name=path, is_thorough=True, reads_rows=True, scope=scope)
    except OSError as error:
        if error.errno in FORBIDDEN and not scope.is_owner():
            raise NotPermitted(
                f"{path} cannot be read: {reason(error)}",
                hint=scope.rbeectl(f"catalog check {shlex.quote(str(path))}", as_root=True),
            ) from error
        raise refused(error, path, "read", CatalogUnusable) from error
    except sqlite3.Error as error:
        raise CatalogUnusable(f"{path} cannot be read: {error}") from error


def copy_aside(source: Path, target: Path) -> None:
    """Copy a file into a temporary folder; if that is full, the error names the folder, not the file."""
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise no_temporary_folder(error) from error
        raise


def _no_file(path: Path) -> RbeeError:
    if not os.path.lexists(path):
        return BadInput(f"{path} does not exist", field="FILE")
    return BadInput(f"{path} is not a file", field="FILE")
