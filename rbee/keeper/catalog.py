"""rbeectl catalog: a copy of the queen's catalog, a look at one, and putting one in its place.

The catalog itself is the queen's. It is touched here in a restore alone, under the lock that
an awake queen holds, by root.
"""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rbee import catalogfile, config
from rbee.catalogfile import LOGS, Lock, log_of, unfinished_restore
from rbee.client.queen import QueenClient
from rbee.contracts import CatalogReport, QueenRoutes
from rbee.errors import (
    BadInput,
    CatalogUnusable,
    NotPermitted,
    NotRunning,
    RbeeError,
    with_packages,
)
from rbee.files import (
    FORBIDDEN,
    NO_ROOM,
    as_owner_of,
    end_of,
    explained,
    hand_to_owner_of,
    no_temporary_folder,
    reason,
    refused,
    sync_folder,
    temporary_folder,
)
from rbee.keeper.permission import explain
from rbee.narration import CATALOG_CHANGED, Narrator
from rbee.scope import QUEEN_UNIT

CATALOG = Path("/var/lib/queen-rbee/catalog.db")
"""Where the catalog is unless Database= says otherwise; StateDirectory= of the queen's unit."""

QUEEN_USER = "queen-rbee"
RESTORED = "the hive catalog is restored from a backup, whose tokens are revoked"


@dataclass(frozen=True, slots=True)
class Restored:
    """`report` is of the new catalog, None where there is none; `old` is where the one before is kept."""

    path: Path
    report: CatalogReport | None
    old: Path | None


def place() -> Path:
    """The queen's catalog, as she finds it herself."""
    return config.load().queen.database or CATALOG


# A copy from an awake queen


def backup(
    queen: QueenClient, queen_state: str, target: str, *, is_forced: bool = False
) -> CatalogReport | None:
    """Write a copy of the awake queen's catalog to a file, or to stdout for '-', where nothing is returned.

    A file appears under its name when it is complete, checked and on the disk, and not before.
    """
    if target == "-" and sys.stdout.isatty():
        raise BadInput(
            "the catalog is an SQLite file, and stdout is a terminal", hint="rbeectl catalog backup FILE"
        )
    path = None if target == "-" else _target(target, is_forced=is_forced)
    _must_be_awake(queen_state, f"rbeectl catalog backup {shlex.quote(target)}")
    if path is None:
        for part in _fetch(queen):
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()
        return None
    return _write_copy(queen, path)


def _must_be_awake(queen_state: str, again: str) -> None:
    if queen_state == "awake":
        return
    wake = {
        "waking": again,
        "stopping": f"systemctl start {QUEEN_UNIT}\n{again}",
        "failed": f"systemctl status {QUEEN_UNIT}",
    }
    raise NotRunning(
        f"the queen is {queen_state}, and a copy of her catalog is made by her alone",
        hint=wake.get(queen_state, f"systemctl start {QUEEN_UNIT}\n{again}"),
    )


def _fetch(queen: QueenClient) -> Iterator[bytes]:
    try:
        yield from queen.fetch(QueenRoutes.CATALOG)
    except NotPermitted as error:
        raise explain(error) from error


def _target(target: str, *, is_forced: bool) -> Path:
    with _told(Path(target), "written"):
        path = end_of(target, field="FILE", hint="rbeectl catalog backup FILE")
        if os.path.lexists(path) and not is_forced:
            raise BadInput(
                f"{target} is there already",
                hint=f"rbeectl catalog backup --force {shlex.quote(target)}",
                field="FILE",
            )
        if not path.parent.is_dir():
            raise BadInput(
                f"there is no folder {path.parent}",
                hint=f"mkdir -p {shlex.quote(str(path.parent))}",
                field="FILE",
            )
    return path


def _write_copy(queen: QueenClient, path: Path) -> CatalogReport:
    with _told(path, "written"):
        number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(number, "wb") as copy:
                for part in _fetch(queen):
                    copy.write(part)
                copy.flush()
                os.fsync(copy.fileno())
            report = catalogfile.check(Path(name), name=path)
            os.rename(name, path)
            sync_folder(path.parent)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name)
    return report


@contextmanager
def _told(path: Path, done: str) -> Iterator[None]:
    """What the operating system or SQLite refuses becomes words with a cure."""
    try:
        with explained(path, done):
            yield
    except sqlite3.Error as error:
        is_full = catalogfile.error_code(error) == sqlite3.SQLITE_FULL
        cause = OSError(errno.ENOSPC if is_full else 0, str(error))
        raise refused(cause, path, done) from error


# Is it sound


def is_the_queens(file: str) -> bool:
    """Is it the catalog that a queen may be writing right now?"""
    return os.path.realpath(file) == os.path.realpath(place())


def check(queen: QueenClient, queen_state: str, file: str | None) -> CatalogReport:
    """Read a file, or the queen's catalog: by her while she is awake, by root from the disk otherwise."""
    if file is not None:
        return _read(Path(file))
    if queen_state == "awake":
        try:
            report = queen.ask(QueenRoutes.CHECK_CATALOG)
        except NotPermitted as error:
            raise explain(error) from error
        return report
    path = place()
    if os.geteuid() != 0:
        raise NotPermitted(
            f"the queen is {queen_state}, and root alone may read {path} then",
            hint="sudo rbeectl catalog check",
        )
    with _told(path, "read"):
        if not path.parent.is_dir() or not os.path.lexists(path):
            raise NotRunning(
                f"there is no catalog yet: the queen makes {path} when she first wakes",
                hint="rbeectl add-hive localhost",
            )
        with Lock.take(path, is_shared=True):
            return _read(path)


def _read(path: Path) -> CatalogReport:
    """The report of a file. One with a log is read as a copy of both, where SQLite may write."""
    try:
        if not path.is_file():
            raise _no_file(path)
        with ExitStack() as end:
            read, log = path, log_of(path)
            if log.exists() and log.stat().st_size:
                read = end.enter_context(temporary_folder("catalog-")) / "catalog.db"
                _copy_aside(path, read)
                _copy_aside(log, log_of(read))
            return catalogfile.check(read, name=path, is_thorough=True, reads_rows=True)
    except OSError as error:
        if error.errno in FORBIDDEN and os.geteuid() != 0:
            raise NotPermitted(
                f"{path} cannot be read: {reason(error)}",
                hint=f"sudo rbeectl catalog check {shlex.quote(str(path))}",
            ) from error
        raise refused(error, path, "read", CatalogUnusable) from error
    except sqlite3.Error as error:
        raise CatalogUnusable(f"{path} cannot be read: {error}") from error


def _copy_aside(source: Path, target: Path) -> None:
    """Copy a file into a temporary folder; the file is not to blame for what is in the way there."""
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise no_temporary_folder(error) from error
        raise


def _no_file(path: Path) -> RbeeError:
    if not os.path.lexists(path):
        return BadInput(f"there is no {path}", field="FILE")
    return BadInput(f"{path} is no file", field="FILE")


# Another in its place


def restore(file: str | None, *, path: Path | None = None, journal: Narrator | None = None) -> Restored:
    """Put a file in the catalog's place, or with None nothing; what is there is kept beside it.

    Each step leaves either the old catalog whole, or a name by which the queen sees that she
    must not start (unfinished_restore). First the file, for the log must never meet another one.
    """
    if os.geteuid() != 0:
        again = "--empty" if file is None else shlex.quote(file)
        raise NotPermitted("root alone may restore the catalog", hint=f"sudo rbeectl catalog restore {again}")
    target = path or place()
    source = Path(file) if file is not None else None
    if source is not None:
        _read(source)  # it is sound, or this raises
    with _told(target, "written"), ExitStack() as end:
        whole = end.enter_context(_single_file(source)) if source is not None else None
        _make_folder(target.parent)
        if target.is_symlink():
            raise BadInput(f"{target} is a symbolic link", hint=f"ls -ld {target}", field="Database")
        for suffix in ("", *LOGS):
            hand_to_owner_of(target.parent, log_of(target, suffix))
        # From here on with no more rights than the queen has, in whose folder it is done.
        end.enter_context(as_owner_of(target.parent))
        with Lock.take(target) as lock:
            report = _prepare(whole, source, target, lock)
            try:
                old = _set_aside(target, lock)
                if source is not None:
                    os.rename(unfinished_restore(target), target)
            except OSError:
                _take_back(target, lock)
                raise
            if source is None:
                target.unlink(missing_ok=True)
                lock.sync()
                unfinished_restore(target).unlink()
            log_of(target, "-shm").unlink(missing_ok=True)
            lock.sync()
    if journal is not None:
        what = f"is restored from {file}" if file is not None else "is set aside, to begin anew"
        # Under sudo(8) the actor is who called it.
        asker = os.environ.get("SUDO_UID", str(os.geteuid()))
        journal.narrate(
            CATALOG_CHANGED,
            f"the hive catalog {target} {what}" + (f"; the one before is {old}" if old else ""),
            speaker="bee keeper",
            actor_uid=asker,
            actor_pid=str(os.getpid()),
        )
    return Restored(target, report, old)


def _make_folder(folder: Path) -> None:
    """The state directory of a queen who was never started, as systemd would make it."""
    if folder.is_dir():
        return
    import pwd

    try:
        user = pwd.getpwnam(QUEEN_USER)
    except KeyError:
        raise NotRunning(f"there is no user {QUEEN_USER}", hint=with_packages("rbee-queen")) from None
    folder.mkdir(mode=0o700)
    os.chown(folder, user.pw_uid, user.pw_gid)


def _prepare(whole: BinaryIO | None, source: Path | None, target: Path, lock: Lock) -> CatalogReport | None:
    """The new catalog, whole and on the disk, under the name that says a restore has begun."""
    new = Path(f"{target}.new")
    new.unlink(missing_ok=True)
    owner = os.fstat(lock.folder)
    # A name that is there, or a link, is an error.
    number = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(number, "wb") as copy:
            if whole is not None:
                shutil.copyfileobj(whole, copy)
            copy.flush()
            os.fchown(copy.fileno(), owner.st_uid, owner.st_gid)
            os.fsync(copy.fileno())
        report = (
            catalogfile.check(new, name=source, is_thorough=True, reads_rows=True)
            if source is not None
            else None
        )
        # An unfinished restore of before is replaced, and never away.
        os.rename(new, unfinished_restore(target))
        lock.sync()
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    return report


@contextmanager
def _single_file(source: Path) -> Iterator[BinaryIO]:
    """A copy of a catalog with all of its log in it."""
    with temporary_folder("catalog-") as folder:
        flat = folder / "catalog.db"
        with explained(source, "read"):
            _copy_aside(source, flat)
            if log_of(source).exists():
                _copy_aside(log_of(source), log_of(flat))
        with _told(folder, "written"):
            with closing(sqlite3.connect(flat, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = DELETE")
                # What was spent since would be good again. Of damage, check() says more; before version 2
                # there are no tokens.
                with _unless_damaged():
                    connection.execute("UPDATE tokens SET is_revoked = 1 WHERE NOT is_revoked")
                    connection.execute(
                        "INSERT INTO audit (at_ms, text, actor_uid) VALUES (?, ?, ?)",
                        (time.time_ns() // 1_000_000, RESTORED, os.getuid()),
                    )
            whole = flat.open("rb")
        with whole:
            yield whole


@contextmanager
def _unless_damaged() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if not catalogfile.is_damage(error):
            raise


def _set_aside(target: Path, lock: Lock) -> Path | None:
    """Give the catalog a second name and move its logs there; None where there was none.

    A link, and not a new name: a restore that goes on where another was cut off knows by it
    where the file's log has gone, or has to go.
    """
    old = _linked_name(target)
    if old is None:
        old = _free_name(target)
        if target.is_dir():
            os.rename(target, old)  # which nothing can be linked to, and no log belongs to
        elif target.exists():
            os.link(target, old)
    for suffix in LOGS:
        if os.path.lexists(log_of(target, suffix)):
            os.rename(log_of(target, suffix), log_of(old, suffix))
    # Before the new one comes: its name must not meet the old log, whatever reaches the disk first.
    lock.sync()
    kept = [log_of(old, suffix) for suffix in ("", *LOGS) if os.path.lexists(log_of(old, suffix))]
    return kept[0] if kept else None


def _take_back(target: Path, lock: Lock) -> None:
    """Have the catalog as it was before a restore that failed; else it is one that has to be finished."""
    with suppress(OSError):
        if not target.is_file():
            return
        old = _linked_name(target)
        if old is not None:
            for suffix in LOGS:
                if os.path.lexists(log_of(old, suffix)):
                    os.rename(log_of(old, suffix), log_of(target, suffix))
            lock.sync()
            old.unlink()
        unfinished_restore(target).unlink(missing_ok=True)
        lock.sync()


def _linked_name(target: Path) -> Path | None:
    """The name under which a restore that was cut off has kept the very file that is in place."""
    if not target.exists():
        return None
    kept = (one for one in target.parent.iterdir() if one.name.startswith(f"{target.name}."))
    return next((one for one in kept if one.name.endswith(".old") and one.samefile(target)), None)


def _free_name(target: Path) -> Path:
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    number = 0
    while True:
        old = Path(f"{target}.{moment}{f'-{number}' if number else ''}.old")
        if not any(os.path.lexists(log_of(old, suffix)) for suffix in ("", *LOGS)):
            return old
        number += 1
