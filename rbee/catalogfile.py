"""The catalog's file, as queen and keeper both see it: whose it is, whether it is sound, who has it.

The table in it is the queen's business (queen/store/); putting another file in its
place is the keeper's (keeper/catalog.py). Neither does either without the lock.
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

APPLICATION_ID = int.from_bytes(b"rbee", "big")

VERSION = 3
"""The newest version that this rbee knows: the number of files in queen/store/schema/."""

BUSY_TIMEOUT = 5.0
"""Seconds that reading or writing waits for another process that keeps the catalog locked."""

LOCK_TIMEOUT = 3.0
"""Seconds that a queen who starts waits for whoever has the catalog: a restore takes less."""

LOCK_POLL = 0.02
"""Seconds between two tries for the lock: flock(2) can wait for ever or not at all."""


def way_out(scope: Scope = SYSTEM, *, is_open: bool = False) -> str:
    """What to type when the queen does not start for her catalog: a backup in its place, or none.

    One that she has open has to be closed first.
    """
    commands = [scope.rbeectl("shutdown")] if is_open else []
    commands += [scope.rbeectl(f"catalog restore {what}", as_root=True) for what in ("FILE", "--empty")]
    return "\n".join(commands)


WAY_OUT = way_out()
WAY_OUT_AWAKE = way_out(is_open=True)

LOGS = ("-wal", "-journal")
"""What SQLite keeps beside a file, and takes for the log of whatever file it finds there."""

_DAMAGED = (sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def log_of(path: Path, suffix: str = "-wal") -> Path:
    return Path(f"{path}{suffix}")


def unfinished_restore(path: Path) -> Path:
    """What a restore takes for its own while it puts the new file in the old one's place."""
    return Path(f"{path}.restoring")


def error_code(error: BaseException) -> int:
    """SQLite's primary result code; 0 for an error that is not SQLite's own."""
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def is_damage(error: BaseException) -> bool:
    """Does SQLite complain of what is in the file? Text that is not Unicode is Python's own complaint."""
    if not isinstance(error, sqlite3.DatabaseError):
        return False
    return not hasattr(error, "sqlite_errorcode") or error_code(error) in _DAMAGED


# Is it sound


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
    """Read all of a catalog and change nothing; CatalogUnusable if it is damaged, foreign or too new.

    `name` is what it is called in messages, `way_out` their hint. Thorough means that indexes
    are compared with their tables, too; `reads_rows` that the schema is the queen's and that each row is one
    that she can show. When `goes_on` says no, SQLite ends with
    SQLITE_INTERRUPT; that and what the operating system refuses is the caller's to explain.

    Long because it is one list of what may be wrong, each with its words.
    """
    shown = name or path
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):
        raise CatalogUnusable(f"{shown} is no file", hint=way_out)
    if found.st_size == 0:
        # The queen makes a catalog aside and then moves it there: no catalog of hers is ever empty.
        raise CatalogUnusable(f"{shown} is damaged: it is empty, 0 bytes", hint=way_out)
    try:
        with closing(_open_read_only(path, busy_timeout)) as connection:
            connection.set_progress_handler(lambda: not goes_on(), 500)
            version = _check_version(connection, shown, newest, way_out)
            pragma = "integrity_check" if is_thorough else "quick_check"
            (verdict,) = connection.execute(f"PRAGMA {pragma}(1)").fetchone()
            if verdict != "ok":
                said = " ".join(verdict.split())
                raise CatalogUnusable(f"{shown} is damaged: {said}", hint=way_out)
            # To the last row: text that is no Unicode is seen by reading alone.
            hives = sum(1 for _ in connection.execute("SELECT * FROM hives")) if version else 0
            if reads_rows:
                _check_schema(connection, shown, version, way_out, scope)
                _check_rows(connection, shown, version, way_out, scope)
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        raise CatalogUnusable(f"{shown} is damaged or no hive catalog: {error}", hint=way_out) from error
    return CatalogReport(str(shown), version, hives, found.st_size + _size(log_of(path)))


def members(path: Path) -> int:
    """How many hives of a catalog have joined, and have a credential. Raises sqlite3.Error."""
    with closing(_open_read_only(path, 1.0)) as connection:
        columns = {row[1] for row in connection.execute("PRAGMA table_info(hives)")}
        if "credential" not in columns:  # before version 2 nobody joins
            return 0
        (count,) = connection.execute("SELECT count(*) FROM hives WHERE credential IS NOT NULL").fetchone()
        return int(count)


MADE: tuple[frozenset[tuple[str, str]], ...] = (
    frozenset({("table", "hives")}),
    frozenset({
        ("table", "tokens"), ("table", "audit"),
        ("index", "hives_by_machine"), ("index", "hives_by_credential"),
    }),
    frozenset(),  # a column
)  # fmt: skip
"""What each file of queen/store/schema/ makes, by kind and name."""

SHOWN: Mapping[str, Any] = {"hives": HiveView, "tokens": TokenView, "audit": AuditEntry}
"""What each row is shown as: columns and fields have the same names."""


def _check_schema(
    connection: sqlite3.Connection, shown: Path, version: int, way_out: str | None, scope: Scope
) -> None:
    """A trigger of somebody else's fails the queen's writes, a view in a table's place her reads."""
    made = frozenset[tuple[str, str]]().union(*MADE[:version])
    found = set(connection.execute("SELECT type, name FROM sqlite_schema WHERE name NOT GLOB 'sqlite_*'"))
    for kind, name in sorted(found - made):
        quoted = '"' + name.replace('"', '""') + '"'
        raise CatalogUnusable(
            f"{shown} has the {kind} '{name:.100}', which no queen has made",
            hint=_by_hand(shown, f"DROP {kind.upper()} {quoted}", way_out, scope),
        )
    for kind, name in sorted(made - found):
        raise CatalogUnusable(f"{shown} is damaged: its {kind} {name} is missing", hint=way_out)


def _check_rows(
    connection: sqlite3.Connection, shown: Path, version: int, way_out: str | None, scope: Scope
) -> None:
    """One row that no answer can have fails every list that it belongs to."""
    there = {name for made in MADE[:version] for kind, name in made if kind == "table"}
    for table in there & SHOWN.keys():
        kinds = get_type_hints(SHOWN[table], include_extras=True)
        # Devices and labels that cannot be read are taken for unknown: nothing fails by them.
        columns = [
            name
            for _, name, *_ in connection.execute(f"PRAGMA table_info({table})")
            if name in kinds and name not in ("devices", "labels")
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
    """Why a value is not of a kind; None where it is."""
    try:
        decode(kind, bool(value) if kind is bool else value)
    except BadInput as error:
        return error.message.removeprefix("the body ")
    return None


def _by_hand(shown: Path, statement: str, way_out: str | None, scope: Scope) -> str:
    """The statement that mends a catalog, which nobody has open by then, before what else there is."""
    mend = scope.as_root(f"sqlite3 {quote(str(shown))} {quote(statement)}")
    shutdown = scope.rbeectl("shutdown")
    if way_out and way_out.startswith(shutdown):
        mend = f"{shutdown}; {mend}"
    return f"{mend}\n{way_out}" if way_out else mend


def has_hive(path: Path, hive_id: str) -> bool:
    """Whether a catalog has a hive of this id. Raises sqlite3.Error."""
    with closing(_open_read_only(path, 1.0)) as connection:
        return connection.execute("SELECT 1 FROM hives WHERE id = ?", (hive_id,)).fetchone() is not None


def _open_read_only(path: Path, busy_timeout: float) -> sqlite3.Connection:
    """Read-only: whoever closes a database that it may write, writes the log back into it.

    Immutable where there is no log, or SQLite would leave an empty one behind.
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
            f"{shown} has version {version}, and this rbee knows {newest} at most: a newer one wrote it",
            hint=f"{upgrade}\n{way_out}" if way_out else upgrade,
        )
    return int(version)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


# Where it can be

LOCKS, SHARED_MEMORY = "file locks", "shared memory"

PROBE = ".probe"
"""A file that is there for the moment in which it is asked what the file system has."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)


def lack_of(folder: Path) -> str | None:
    """What SQLite's log needs and the folder's file system does not have; None if nothing.

    Found out with a small file, as the kernel's answers are SQLite's reasons: it calls a lock that the
    file system refuses "database is locked", by whoever. Raises OSError if there can be no such file.
    """
    path = folder / PROBE
    path.unlink(missing_ok=True)
    probe = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(probe, mmap.PAGESIZE)
        try:
            # Nobody else has this file: no answer but yes is a right one.
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
    """The error for a catalog on a file system that lacks something."""
    name = file_system_of(path.parent)
    return kind(
        f"{path} cannot be used: its file system{f' ({name})' if name else ''} has no {lack}; "
        "set Database= in rbee.conf to a file on a local disk",
        hint=f"findmnt --target {shlex.quote(str(path.parent))}\nman rbee.conf",
    )


def file_system_of(folder: Path) -> str | None:
    """The type of the file system that a folder is on, as mount(8) calls it, by proc(5)."""
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


# Who has it


class Lock:
    """flock(2) on the catalog's folder: a queen holds it while she has the catalog open.

    On the folder, because the file itself changes when it is restored, and closing any
    descriptor of it would drop the locks of SQLite (fcntl(2)). The kernel lets it go with
    its process, so that it is never stale.
    """

    def __init__(self, folder: int) -> None:
        self.folder = folder
        """A descriptor of the folder, for what is done in it."""

    @classmethod
    def take(cls, path: Path, *, is_shared: bool = False, timeout: float = 0, scope: Scope = SYSTEM) -> Self:
        """Lock the folder of `path`; CatalogInUse after `timeout` seconds, OSError if there is none."""
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
                # NFS wants a descriptor that may be written to, which none of a folder is.
                if error.errno in (*_NO_LOCKS, errno.EBADF):
                    raise no_place(CatalogUnusable, path, LOCKS) from error
                raise
            return cls(folder)

    def sync(self) -> None:
        """Names that were made, changed or taken away in the folder are on the disk."""
        sync_folder(self.folder)

    def close(self) -> None:
        os.close(self.folder)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()


def _holder(folder: int) -> str | None:
    """Who holds an flock, by /proc/locks (proc(5)); None for who may not see it, as the queen may not."""
    found = os.fstat(folder)
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    with suppress(OSError):
        for line in Path("/proc/locks").read_text().splitlines():
            kind, _advisory, _mode, pid, where = line.replace("-> ", "").split()[1:6]
            if (kind, where) == ("FLOCK", place) and int(pid) > 0:
                name = Path(f"/proc/{pid}/comm").read_text().strip()
                return f"{name} (process {pid})"
    return None
