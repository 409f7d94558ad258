"""The catalog as a file: is it ours, is it sound, who may touch it now, and what to do if not.

The queen asks before she opens it, the keeper before it puts one back. Nothing here writes
to a catalog; what stands in its table is the queen's (rbee/queen/catalog.py).
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from rbee.contracts import CatalogReport
from rbee.errors import CatalogUnusable

PATH = Path("/var/lib/queen-rbee/catalog.db")
"""Where it is unless rbee.conf says Database=; the state directory of queen-rbee.service."""

APPLICATION_ID = int.from_bytes(b"rbee", "big")

VERSION = 1
"""The newest version (PRAGMA user_version) that this rbee knows."""

BUSY_TIMEOUT = 5.0
"""Seconds that a read or a write waits for another process that holds the file (an sqlite3 shell)."""

_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def inspect(path: Path, *, newest: int = VERSION, is_thorough: bool = False) -> CatalogReport:
    """Read a catalog and say what it is; CatalogUnusable where a queen must not open it.

    `is_thorough` compares indexes and tables too, which takes longer (PRAGMA integrity_check).
    The hints of the errors are for the queen's own file.
    """
    try:
        with path.open("rb") as content:  # sqlite3 only says that it was unable
            if not content.read(1):
                raise CatalogUnusable(f"{path} is empty: no hive catalog", hint=way_out(path))
        return _inspect(path, newest, "integrity_check" if is_thorough else "quick_check")
    except (sqlite3.Error, OSError) as error:
        raise unusable(path, error) from error


def _inspect(path: Path, newest: int, check: str) -> CatalogReport:
    with closing(_connect_to_read(path)) as connection:
        (application_id,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if application_id != APPLICATION_ID:
            raise CatalogUnusable(f"{path} is an SQLite file of another program", hint=way_out(path))
        if version > newest:
            raise CatalogUnusable(
                f"{path} has version {version}, and this rbee knows {newest} at most",
                hint="Install the newer rbee-queen that wrote it.",
            )
        (verdict,) = connection.execute(f"PRAGMA {check}(1)").fetchone()
        if verdict != "ok":
            raise CatalogUnusable(f"{path} is damaged: {' '.join(verdict.split())}", hint=way_out(path))
        (hives,) = connection.execute("SELECT count(*) FROM hives").fetchone()
        return CatalogReport(str(path), version, hives, path.stat().st_size)


def _connect_to_read(path: Path) -> sqlite3.Connection:
    # Read-only: whoever closes a database that it may write, writes the log back into it.
    # Immutable where there is no log, or SQLite would leave an empty one behind.
    has_log = Path(f"{path}-wal").exists()
    uri = f"{path.absolute().as_uri()}?mode=ro{'' if has_log else '&immutable=1'}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT)


def copy(source: sqlite3.Connection, target: Path) -> None:
    """Write what a catalog holds now, its log included, to a new file that needs none."""
    with closing(sqlite3.connect(target, isolation_level=None)) as connection:
        source.backup(connection)
        connection.execute("PRAGMA journal_mode = DELETE")


def copy_file(source: Path, target: Path) -> None:
    """As copy(), from a file that is only read."""
    with closing(_connect_to_read(source)) as connection:
        copy(connection, target)


@contextmanager
def held(directory: Path) -> Iterator[None]:
    """Hold the catalog of this directory: a queen for as long as she lives, a restore for its length.

    Raises CatalogUnusable where another process does. The lock ends with the process (flock(2)).
    """
    try:
        place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise unusable(directory, error) from error
    try:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CatalogUnusable(
                f"another process has the hive catalog in {directory}",
                hint=f"systemctl status queen-rbee.service; sudo lslocks | grep {directory}",
            ) from error
        yield
    finally:
        os.close(place)


def unusable(path: Path, error: sqlite3.Error | OSError) -> CatalogUnusable:
    """What a failed open means."""
    told, hint = trouble(path, error)
    return CatalogUnusable(f"{path} {told}", hint=hint)


def trouble(path: Path, error: sqlite3.Error | OSError) -> tuple[str, str]:
    """What is wrong with the catalog at `path`, said of it, and the cure.

    SQLite says 'unable to open' or 'disk I/O error' for much; the file system says more.
    """
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    directory = path.parent
    said = getattr(error, "strerror", None) or str(error)
    if code in _DAMAGED:
        return f"is damaged or no hive catalog: {said}", way_out(path)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"is held by another process: {said}", "sudo rbeectl doctor"
    if code == sqlite3.SQLITE_FULL or _errno(error) in (errno.ENOSPC, errno.EDQUOT) or _is_full(directory):
        return f"has no room: the disk is full ({said})", f"Make room: df {directory}"
    if _errno(error) == errno.EROFS or _is_read_only(directory):
        return (
            f"cannot be written: its file system is read-only ({said})",
            f'sudo mount -o remount,rw "$(findmnt -n -o TARGET -T {directory})"',
        )
    if _errno(error) in (errno.EACCES, errno.EPERM) or code in (sqlite3.SQLITE_PERM, sqlite3.SQLITE_READONLY):
        return (
            f"may not be used by the queen's user: {said}",
            f"sudo chown -R --reference={directory} {directory}",
        )
    return f"cannot be used: {said}", f"ls -ld {path} {directory}; df {directory}"


def way_out(path: Path) -> str:
    """What to type where a catalog cannot be used; the queen never overwrites one."""
    return (
        f"sudo rbeectl catalog restore FILE, with your backup as FILE; "
        f"or begin anew: sudo mv {path} {path}.aside"
    )


def _errno(error: BaseException) -> int:
    return (error.errno or 0) if isinstance(error, OSError) else 0


def _is_full(directory: Path) -> bool:
    try:
        return os.statvfs(directory).f_bavail == 0
    except OSError:
        return False


def _is_read_only(directory: Path) -> bool:
    try:
        return bool(os.statvfs(directory).f_flag & os.ST_RDONLY)
    except OSError:
        return False
