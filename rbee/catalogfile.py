"""The catalog's file, for queen and keeper: checking it, its file system, and its lock.

The queen reads and writes its tables (queen/store/), the keeper replaces the file (keeper/catalog/); both
only while they hold the lock.
"""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import re
import shlex
import sqlite3
import stat
import time
from collections.abc import Callable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from shlex import quote
from typing import Any, Self, get_type_hints

from rbee.errors import UPGRADE, BadInput, CatalogFailed, CatalogInUse, CatalogUnusable, RbeeError
from rbee.files import sync_folder
from rbee.scope import SYSTEM, Scope
from rbee.wire.catalog import AuditEntry, CatalogReport
from rbee.wire.codec import decode
from rbee.wire.fleet import TokenView
from rbee.wire.hives import HiveView
from rbee.wire.keys import KeyView
from rbee.wire.models import ModelView

APPLICATION_ID = int.from_bytes(b"rbee", "big")

VERSION = 2
"""The newest version that this rbee supports: the last number of a file in queen/store/schema/."""

BUSY_TIMEOUT = 5.0
"""Seconds that reading or writing waits for another process that keeps the catalog locked."""

LOCK_TIMEOUT = 3.0
"""Seconds that a starting queen waits for the lock: a restore takes less."""

LOCK_POLL = 0.02
"""Seconds between two tries for the lock: flock(2) has no timeout."""


def way_out(scope: Scope = SYSTEM, *, is_open: bool = False) -> str:
    """Return the commands that replace an unusable catalog by a backup, or by an empty one.

    If `is_open`, the queen is shut down first.
    """
    commands = [scope.rbeectl("shutdown")] if is_open else []
    commands += [scope.rbeectl(f"catalog restore {what}", as_root=True) for what in ("FILE", "--empty")]
    return "\n".join(commands)


LOGS = ("-wal", "-journal")
"""Suffixes of SQLite's logs, which it applies to whatever file is beside them."""

_DAMAGED = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def log_of(path: Path, suffix: str = "-wal") -> Path:
    """Return the path of a catalog's log."""
    return Path(f"{path}{suffix}")


def unfinished_restore(path: Path) -> Path:
    """Return the path of the marker that exists while a restore replaces the file."""
    return Path(f"{path}.restoring")


def error_code(error: BaseException) -> int:
    """Return SQLite's primary result code; 0 for an error that is not from SQLite."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_damage(error: BaseException) -> bool:
    """Is it an error about the file's content, by SQLite or (text that is not Unicode) by Python?"""
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    return not hasattr(error, "sqlite_errorcode") or error_code(error) in _DAMAGED


# Checking


def check(
    path: Path,
    *,
    name: Path | None = None,
    newest: int = VERSION,
    is_thorough: bool = False,
    reads_rows: bool = False,
    busy_timeout: float = BUSY_TIMEOUT,
    way_out: str | None = None,
    scope: Scope = SYSTEM,
    goes_on: Callable[[], bool] = lambda: True,
) -> CatalogReport:
    """Read all of a catalog, changing nothing; CatalogUnusable if it is damaged, foreign or too new.

    `name` is its name in messages, `way_out` is their hint. `is_thorough` also compares indexes with their
    tables; `reads_rows` also checks that the schema is a queen's and that each row can be shown. Once
    `goes_on` returns False, SQLite ends with SQLITE_INTERRUPT. That sqlite3.Error and any OSError are for
    the caller to explain.

    Long because it is one list of faults, each with its message.
    """
    shown = name or path
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise CatalogUnusable(f"{shown} is not a regular file", hint=way_out)
    if status.st_size == 0:
        # A catalog is created beside its place and then renamed: a queen never leaves an empty one.
        raise CatalogUnusable(f"{shown} is damaged: it is empty, 0 bytes", hint=way_out)
    try:
        with closing(_open_read_only(path, busy_timeout)) as connection:
            connection.set_progress_handler(lambda: not goes_on(), 500)
            version = _check_version(connection, shown, newest, way_out)
            pragma = "integrity_check" if is_thorough else "quick_check"
            (verdict,) = connection.execute(f"PRAGMA {pragma}(1)").fetchone()
            if verdict != "ok":
                fault = " ".join(verdict.split())
                raise CatalogUnusable(f"{shown} is damaged: {fault}", hint=way_out)
            # All rows: text that is not Unicode is noticed only by reading it.
            hives = sum(1 for _ in connection.execute("SELECT * FROM hives")) if version else 0
            if reads_rows:
                _check_schema(connection, shown, version, way_out, scope)
                _check_rows(connection, shown, version, way_out, scope)
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        raise CatalogUnusable(f"{shown} is damaged or not a hive catalog: {error}", hint=way_out) from error
    return CatalogReport(str(shown), version, hives, status.st_size + _size(log_of(path)))


def members(path: Path) -> int:
    """Return how many hives in a catalog have joined and have a credential. Raises sqlite3.Error."""
    with closing(_open_read_only(path, 1.0)) as connection:
        columns = {row[1] for row in connection.execute("PRAGMA table_info(hives)")}
        if "credential" not in columns:  # before version 2 hives could not join
            return 0
        (count,) = connection.execute("SELECT count(*) FROM hives WHERE credential IS NOT NULL").fetchone()
        return int(count)


MADE: tuple[frozenset[tuple[str, str]], ...] = (
    frozenset({("table", "hives")}),
    frozenset({
        ("table", "tokens"), ("table", "audit"),
        ("index", "hives_by_machine"), ("index", "hives_by_credential"),
    }),
)  # fmt: skip
"""What each numbered file of queen/store/schema/ creates, by kind and name."""

COMPATIBLE = frozenset({
    ("table", "former_credentials"), ("table", "token_authority"), ("table", "reports"),
    ("table", "models"), ("table", "peaks"), ("table", "keys"),
})  # fmt: skip
"""What compatible.sql in that folder creates, which a catalog of the previous release lacks."""

DROPPED = frozenset({("table", "learned")})
"""What it drops, and an older catalog may have."""

SHOWN: Mapping[str, Any] = {
    "hives": HiveView, "tokens": TokenView, "audit": AuditEntry, "models": ModelView, "keys": KeyView,
}  # fmt: skip
"""The shape that shows each table's rows: columns and fields have the same names."""


def _check_schema(
    connection: sqlite3.Connection, shown: Path, version: int, way_out: str | None, scope: Scope
) -> None:
    """Refuse foreign objects: a trigger may fail the queen's writes, a view in a table's place its reads."""
    made = frozenset[tuple[str, str]]().union(*MADE[:version])
    present = set(connection.execute("SELECT type, name FROM sqlite_schema WHERE name NOT GLOB 'sqlite_*'"))
    for kind, name in sorted(present - made - COMPATIBLE - DROPPED):
        quoted = '"' + name.replace('"', '""') + '"'
        raise CatalogUnusable(
            f"{shown} has the {kind} '{name:.100}', which no queen has made",
            hint=_by_hand(shown, f"DROP {kind.upper()} {quoted}", way_out, scope),
        )
    for kind, name in sorted(made - present):
        raise CatalogUnusable(f"{shown} is damaged: its {kind} {name} is missing", hint=way_out)


def _check_rows(
    connection: sqlite3.Connection, shown: Path, version: int, way_out: str | None, scope: Scope
) -> None:
    """Refuse a row with a value that its shape does not allow."""
    there = {name for made in MADE[:version] for kind, name in made if kind == "table"}
    present = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    there |= {name for _, name in COMPATIBLE if name in present}
    for table in sorted(there & SHOWN.keys()):
        kinds = get_type_hints(SHOWN[table], include_extras=True)
        # Without the columns of JSON: what is unreadable in them counts as unknown, and fails nothing.
        columns = [
            name
            for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")
            if name in kinds and name not in ("devices", "labels", "head", "models")
        ]
        for rowid, *row in connection.execute(f"SELECT rowid, {', '.join(columns)} FROM {table}"):  # noqa: S608  # names of our own
            for column, value in zip(columns, row, strict=True):
                wrong = _complaint(kinds[column], value)
                if wrong is not None:
                    raise CatalogUnusable(
                        f"{shown} has a row of {table} that cannot be shown: its {column}, "
                        f"'{value!s:.100}', {wrong}",
                        hint=_by_hand(shown, f"DELETE FROM {table} WHERE rowid = {rowid}", way_out, scope),  # noqa: S608  # as above
                    )


def _complaint(kind: Any, value: Any) -> str | None:
    """Return why a value is not of a kind; None if it is."""
    try:
        decode(kind, bool(value) if kind is bool else value)
    except BadInput as error:
        return error.message.removeprefix("the body ")
    return None


def _by_hand(shown: Path, statement: str, way_out: str | None, scope: Scope) -> str:
    """Return the hint with the SQL statement that repairs a closed catalog, and then the other ways."""
    mend = scope.as_root(f"sqlite3 {quote(str(shown))} {quote(statement)}")
    shutdown = scope.rbeectl("shutdown")
    if way_out and way_out.startswith(shutdown):
        mend = f"{shutdown}; {mend}"
    return f"{mend}\n{way_out}" if way_out else mend


def has_hive(path: Path, hive_id: str) -> bool:
    """Return whether a catalog has a hive with this id. Raises sqlite3.Error."""
    with closing(_open_read_only(path, 1.0)) as connection:
        return connection.execute("SELECT 1 FROM hives WHERE id = ?", (hive_id,)).fetchone() is not None


def _open_read_only(path: Path, busy_timeout: float) -> sqlite3.Connection:
    """Open read-only: closing a writable connection would write the log back into the database.

    Immutable if there is no log; otherwise SQLite would leave an empty one behind.
    """
    mode = "mode=ro" if log_of(path).exists() else "mode=ro&immutable=1"
    return sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=busy_timeout)


def _check_version(connection: sqlite3.Connection, shown: Path, newest: int, way_out: str | None) -> int:
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and application_id != APPLICATION_ID:
        raise CatalogUnusable(f"{shown} is an SQLite file of another program", hint=way_out)
    if version > newest:
        upgrade = UPGRADE[:1].upper() + UPGRADE[1:]
        raise CatalogUnusable(
            f"{shown} has version {version}, and this rbee supports at most {newest}: a newer one wrote it",
            hint=f"{upgrade}\n{way_out}" if way_out else upgrade,
        )
    return int(version)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


# Its file system

LOCKS, SHARED_MEMORY = "file locks", "shared memory"

PROBE = ".probe"
"""A file that exists for a moment, to find out what the file system supports."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


def lack_of(folder: Path) -> str | None:
    """Return what SQLite's log needs but the folder's file system lacks: LOCKS, SHARED_MEMORY, or None.

    Tried with a small file, as SQLite reports a lock that the file system refuses as "database is locked".
    Raises OSError if the file cannot be made.
    """
    path = folder / PROBE
    path.unlink(missing_ok=True)
    probe = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(probe, mmap.PAGESIZE)
        try:
            # No other process has this file: any refusal means that there are no locks.
            fcntl.lockf(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return LOCKS
        try:
            mmap.mmap(probe, mmap.PAGESIZE).close()
        except OSError:
            return SHARED_MEMORY
    finally:
        os.close(probe)
        path.unlink(missing_ok=True)
    return None


def no_place(kind: type[CatalogFailed] | type[CatalogUnusable], path: Path, lack: str) -> RbeeError:
    """Return the error for a catalog on a file system that lacks something."""
    name = file_system_of(path.parent)
    return kind(
        f"{path} cannot be used: its file system{f' ({name})' if name else ''} has no {lack}; "
        "set Database= in rbee.conf to a file on a local disk",
        hint=f"findmnt --target {shlex.quote(str(path.parent))}\nman rbee.conf",
    )


def file_system_of(folder: Path) -> str | None:
    """Return the type of a folder's file system, as mount(8) calls it, by proc(5); None if unknown."""
    with suppress(OSError, ValueError, IndexError):
        number = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            about = Path(f"/proc/self/fdinfo/{number}").read_text()
        finally:
            os.close(number)
        mount = re.search(r"^mnt_id:\s*([0-9]+)$", about, re.MULTILINE)
        for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
            if mount is not None and line.split(maxsplit=1)[0] == mount[1]:
                return line.partition(" - ")[2].split()[0]
    return None


# Its lock


class Lock:
    """flock(2) on the catalog's folder: a queen holds it while it has the catalog open.

    On the folder, because a restore replaces the file, and closing any descriptor of the file would drop
    SQLite's locks (fcntl(2)). The kernel releases it with its process, so it is never stale.
    """

    def __init__(self, folder: int) -> None:
        self.folder = folder
        """A descriptor of the folder."""

    @classmethod
    def take(cls, path: Path, *, is_shared: bool = False, timeout: float = 0, scope: Scope = SYSTEM) -> Self:
        """Lock the folder of `path`; CatalogInUse after `timeout` seconds, CatalogUnusable, or OSError."""
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        deadline = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(folder, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() < deadline:
                    time.sleep(LOCK_POLL)
                    continue
                holder = _holder(folder)
                os.close(folder)
                raise CatalogInUse(
                    f"{path} is in use: {holder or 'another process'} has it open",
                    hint=scope.rbeectl("shutdown"),
                ) from None
            except OSError as error:
                os.close(folder)
                # NFS needs a writable descriptor, which a folder never has.
                if error.errno in (*_NO_LOCKS, errno.EBADF):
                    raise no_place(CatalogUnusable, path, LOCKS) from error
                raise
            return cls(folder)

    def sync(self) -> None:
        """Sync files that were created, renamed or deleted in the folder to the disk."""
        sync_folder(self.folder)

    def close(self) -> None:
        """Release the lock."""
        os.close(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _holder(folder: int) -> str | None:
    """Return the process with an flock, by /proc/locks (proc(5)); None if this user may not see it."""
    status = os.fstat(folder)
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            kind, _advisory, _mode, pid, where = line.replace("-> ", "").split()[1:6]
            if (kind, where) == ("FLOCK", place) and int(pid) > 0:
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                return f"{name} (process {pid})"
    return None
