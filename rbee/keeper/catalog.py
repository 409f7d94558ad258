"""rbeectl catalog: a copy of the hive catalog from an awake queen, a look at one, and one put back."""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rbee import catalogfile
from rbee.client.queen import QueenClient
from rbee.contracts import CatalogReport, QueenRoutes
from rbee.errors import BadInput, CatalogFailed, CatalogUnusable, NotPermitted, NotRunning, StillRunning

STATES_OFF = ("off", "asleep", "failed")


@dataclass(frozen=True, slots=True)
class Restored:
    """What was put in place, and where the catalog from before is kept; None where there was none."""

    report: CatalogReport
    old: Path | None


def back_up(queen: QueenClient, target: str, *, force: bool) -> CatalogReport | None:
    """Copy the catalog of an awake queen to the file `target`, or to standard output for '-'.

    The file is there only once it is whole, looked at and on the disk, and is readable for its
    owner only. None where it went to standard output. BadInput where the file is there already.
    """
    if target == "-":
        if sys.stdout.isatty():
            raise BadInput("a catalog is no text for a terminal", hint="rbeectl catalog backup - > FILE")
        queen.download(QueenRoutes.CATALOG, sys.stdout.buffer.write)
        sys.stdout.buffer.flush()
        return None
    path = Path(target).absolute()
    if not force and os.path.lexists(path):
        raise BadInput(f"{path} is there already", hint="Name another FILE, or add --force.", field="FILE")

    with _failing_at(path, "there is no backup"), _aside(path) as part:
        with part.open("xb") as file:
            queen.download(QueenRoutes.CATALOG, file.write)
        report = _inspect(part, "Ask again, or look at the queen's own: rbeectl catalog check")
        _sync(part)
        os.rename(part, path)
        _sync(path.parent)
        return replace(report, path=str(path))


def check(file: str | None, catalog: Path) -> CatalogReport:
    """Look at every page of a file, or of the queen's own; CatalogUnusable where a queen must not open it."""
    path = Path(file) if file is not None else catalog
    try:
        path.lstat()
    except PermissionError as error:
        raise NotPermitted(f"{path} is not open to you", hint=f"sudo rbeectl catalog check {path}") from error
    except FileNotFoundError as error:
        if file is None:
            raise NotRunning(f"there is no catalog yet: {path}", hint="rbeectl add-hive localhost") from error
        raise BadInput(f"there is no file {path}", field="FILE") from error
    return catalogfile.inspect(path, is_thorough=True) if file is None else _inspect(path, None)


def restore(source: Path, catalog: Path, queen_state: str) -> Restored:
    """Put `source` in the place of the catalog, whose own file is kept beside it.

    At every moment, a crash included, the catalog is the old one or the new one, and the old
    one's file and log are under one name or the other.
    """
    if os.geteuid() != 0:
        raise NotPermitted("only root may put a catalog back", hint=f"sudo rbeectl catalog restore {source}")
    if queen_state not in STATES_OFF:
        raise StillRunning(
            f"the queen is {queen_state}, and must be off while her catalog is changed",
            hint="rbeectl shutdown",
        )
    report = _inspect(source, "Choose another backup; the catalog is as it was.")
    # Whoever wakes the queen now: she will not open a catalog that is held.
    with (
        _failing_at(catalog, "the catalog is as it was"),
        catalogfile.held(catalog.parent),
        _aside(catalog) as part,
    ):
        catalogfile.copy_file(source, part)
        # As systemd makes the state directory for her.
        owner = catalog.parent.stat()
        os.chown(part, owner.st_uid, owner.st_gid)
        _sync(part)
        old = _keep(catalog) if os.path.lexists(catalog) else None
        os.rename(part, catalog)
        _sync(catalog.parent)
        return Restored(replace(report, path=str(catalog)), old)


def _keep(catalog: Path) -> Path:
    """A second name for the catalog from before; its log goes there with it.

    A log that stayed would be played into the new file, which it does not belong to.
    """
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
    old = catalog.with_name(f"{catalog.name}.{moment}.old")
    if catalog.is_dir():
        os.rename(catalog, old)
    else:
        os.link(catalog, old, follow_symlinks=False)
    with suppress(FileNotFoundError):
        os.rename(f"{catalog}-wal", f"{old}-wal")
    # An index into the log, made anew by whoever opens it.
    Path(f"{catalog}-shm").unlink(missing_ok=True)
    return old


@contextmanager
def _aside(path: Path) -> Iterator[Path]:
    """Where a file is made before it gets the name `path`; nothing is left there at the end."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    umask = os.umask(0o077)
    try:
        yield part
    finally:
        os.umask(umask)
        part.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def _inspect(path: Path, hint: str | None) -> CatalogReport:
    """What a file of somebody's own is. The cures for the queen's catalog are none for it."""
    try:
        return catalogfile.inspect(path, is_thorough=True)
    except CatalogUnusable as error:
        raise CatalogUnusable(error.message, hint=hint, field="FILE") from error


@contextmanager
def _failing_at(path: Path, outcome: str) -> Iterator[None]:
    """What could not be written, and how things stand after that."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        said = getattr(error, "strerror", None) or str(error)
        raise CatalogFailed(
            f"{path} could not be written, and {outcome}: {said}",
            hint=f"ls -ld {path.parent}; df {path.parent}",
        ) from error
