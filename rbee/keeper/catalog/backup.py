"""Copy the catalog from an awake queen into a file."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from rbee import catalogfile
from rbee.errors import BadInput, NotRunning
from rbee.files import end_of, make_beside, sync_folder
from rbee.keeper.catalog.location import catalog_explained
from rbee.keeper.queen.queen import Queen
from rbee.scope import QUEEN_UNIT, Scope
from rbee.wire.routes import QueenRoutes

if TYPE_CHECKING:
    from rbee.wire.catalog import CatalogReport


def backup(queen: Queen, queen_state: str, target: str, *, is_forced: bool = False) -> CatalogReport | None:
    """Write a copy of the awake queen's catalog to a file; or to stdout for '-', which returns None.

    The file gets its name when it is complete, checked and on the disk, and not before.

    Raises BadInput if the target cannot be used, NotRunning if the queen is not awake, CatalogUnusable if the
    copy is damaged, NotPermitted or RbeeError if it cannot be written, and what Queen.fetch() raises.
    """
    scope = queen.work.scope
    if target == "-" and sys.stdout.isatty():
        raise BadInput(
            "the catalog is an SQLite file, and stdout is a terminal",
            hint=scope.rbeectl("catalog backup FILE"),
        )
    path = None if target == "-" else _target(target, scope, is_forced=is_forced)
    _must_be_awake(queen_state, target, scope)
    if path is None:
        for part in queen.fetch(QueenRoutes.CATALOG):
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
        return None
    return _write_copy(queen, path)


def _must_be_awake(queen_state: str, target: str, scope: Scope) -> None:
    if queen_state == "awake":
        return
    again = scope.rbeectl(f"catalog backup {shlex.quote(target)}")
    wake = {"waking": again, "failed": scope.systemctl(f"status {QUEEN_UNIT}")}
    raise NotRunning(
        f"the queen is {queen_state}, and only an awake queen can copy its catalog",
        hint=wake.get(queen_state, f"{scope.systemctl(f'start {QUEEN_UNIT}')}\n{again}"),
    )


def _target(target: str, scope: Scope, *, is_forced: bool) -> Path:
    with catalog_explained(Path(target), "written"):
        path = end_of(target, field="FILE", hint=scope.rbeectl("catalog backup FILE"))
        if os.path.lexists(path) and not is_forced:
            raise BadInput(
                f"{target} already exists",
                hint=scope.rbeectl(f"catalog backup --force {shlex.quote(target)}"),
                field="FILE",
            )
        if not path.parent.is_dir():
            raise BadInput(
                f"there is no folder {path.parent}",
                hint=f"mkdir -p {shlex.quote(str(path.parent))}",
                field="FILE",
            )
    return path


def _write_copy(queen: Queen, path: Path) -> CatalogReport:
    with catalog_explained(path, "written"):
        number, name = make_beside(path)
        try:
            with os.fdopen(number, "wb") as copy:
                for part in queen.fetch(QueenRoutes.CATALOG):
                    copy.write(part)
                copy.flush()
                os.fsync(copy.fileno())
            report = catalogfile.check(name, name=path, scope=queen.work.scope)
            os.rename(name, path)
            sync_folder(path.parent)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name)
    return report
