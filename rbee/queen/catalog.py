"""The hive catalog: what survives a reboot. SQLite, one writer thread, off the event loop.

An acknowledged write has reached the disk: WAL with synchronous=FULL syncs the log at each
commit. NORMAL would sync at checkpoints only, and lose the last commits when the power goes
(https://sqlite.org/pragma.html#pragma_synchronous).

Each write that changes something is one line in the journal, CATALOG_CHANGED: what, and by whom.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, TypeVar

from rbee.catalogfile import APPLICATION_ID, BUSY_TIMEOUT, copy, held, inspect, trouble, unusable, way_out
from rbee.contracts import DEFAULT_PORT, CatalogReport, Devices, Status, decode, encode
from rbee.errors import BadInput, CatalogFailed, CatalogUnusable
from rbee.narration import CATALOG_CHANGED, Narrator

log = logging.getLogger("rbee")

Result = TypeVar("Result")

Actor = Mapping[str, str]
"""Who asked for a write, as fields for the journal: actor_uid, actor_pid, and job_id where there is one."""

MIGRATIONS = (
    """
    CREATE TABLE hives (
        id TEXT PRIMARY KEY,
        host TEXT NOT NULL,
        port INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
        status TEXT NOT NULL CHECK (status IN ('pending', 'online', 'offline')),
        devices TEXT,
        created_at_ms INTEGER NOT NULL,
        updated_at_ms INTEGER NOT NULL,
        wanted INTEGER NOT NULL CHECK (wanted IN (0, 1))
    ) STRICT
    """,
)
"""Statement n brings a catalog from version n to n + 1; PRAGMA user_version says where it is."""


@dataclass(frozen=True, slots=True)
class Row:
    """A hive as it stands in the table. Times are milliseconds since the epoch."""

    id: str
    host: str
    port: int
    status: Status
    devices: Devices | None
    created_at_ms: int
    updated_at_ms: int
    wanted: bool


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Catalog:
    """All calls but open() and close() are awaited, and run one after the other in one thread.

    `by` says who asked for a write; what nobody asked for is the queen's own doing.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        journal: Narrator,
        wanted: Callable[[bool], None],
        at_the_end: ExitStack,
    ) -> None:
        self._connection = connection
        self._path = path
        self._journal = journal
        self._wanted = wanted
        self._at_the_end = at_the_end
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="catalog")

    @classmethod
    def open(
        cls,
        path: Path,
        journal: Narrator | None = None,
        *,
        wanted: Callable[[bool], None] = lambda is_wanted: None,
    ) -> Catalog:
        """Open or make the catalog and bring it to this version; CatalogUnusable leaves it as it was.

        After each write, in the catalog's thread, `journal` is told what has changed, and
        `wanted` whether any hive is.
        """
        with ExitStack() as undo:
            undo.enter_context(held(path.parent))
            if os.path.lexists(path):
                inspect(path, newest=len(MIGRATIONS))
            try:
                if not os.path.lexists(path):
                    _make(path)
                connection = _connect(path)
                undo.callback(connection.close)
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                _migrate(connection)
            except (sqlite3.Error, OSError) as error:
                raise unusable(path, error) from error
            catalog = cls(connection, path, journal or Narrator(), wanted, undo.pop_all())
        catalog._tell_wanted()
        return catalog

    def close(self) -> None:
        self._thread.shutdown()
        self._at_the_end.close()

    async def hives(self) -> list[Row]:
        return await self._run(
            lambda: [_row(found) for found in self._connection.execute(_SELECT + " ORDER BY id")]
        )

    async def hive(self, hive_id: str) -> Row | None:
        return await self._run(lambda: self._find(hive_id))

    async def add(self, hive_id: str, host: str, port: int | None, *, by: Actor | None = None) -> Row:
        """Make the hive wanted: a new row is 'pending', a row that is there keeps its status and devices."""
        now = now_ms()
        at = f"host {host}" if port is None else f"host {host}, port {port}"
        await self._write(
            """
            INSERT INTO hives (id, host, port, status, devices, created_at_ms, updated_at_ms, wanted)
            VALUES (?1, ?2, coalesce(?3, ?5), 'pending', NULL, ?4, ?4, 1)
            ON CONFLICT (id) DO UPDATE
            SET host = ?2, port = coalesce(?3, port), wanted = 1, updated_at_ms = ?4
            WHERE (host, port, wanted) IS NOT (?2, coalesce(?3, port), 1)
            """,
            (hive_id, host, port, now, DEFAULT_PORT),
            _Change(hive_id, f"hive {hive_id} ({at}) is wanted in the hive catalog", by),
        )
        row = await self.hive(hive_id)
        if row is None:
            raise CatalogFailed(f"hive {hive_id} was removed while it was added", hint="Add it again.")
        return row

    async def set_online(self, hive_id: str, devices: Devices, *, by: Actor | None = None) -> None:
        """Store the devices and the status 'online', in one transaction; who came online is wanted."""
        stored = json.dumps(encode(devices), ensure_ascii=False)
        await self._write(
            """
            UPDATE hives SET devices = ?1, status = 'online', wanted = 1, updated_at_ms = ?2
            WHERE id = ?3 AND (devices, status, wanted) IS NOT (?1, 'online', 1)
            """,
            (stored, now_ms(), hive_id),
            _Change(hive_id, f"hive {hive_id} is online in the hive catalog, with its devices", by),
        )

    async def set_status(
        self, hive_id: str, status: Status, *, wanted: bool | None = None, by: Actor | None = None
    ) -> None:
        """Store a change of status; nothing is written where there is none."""
        wish = {None: "", True: " and wanted", False: " and not wanted"}[wanted]
        await self._write(
            """
            UPDATE hives SET status = ?1, wanted = coalesce(?2, wanted), updated_at_ms = ?3
            WHERE id = ?4 AND (status, wanted) IS NOT (?1, coalesce(?2, wanted))
            """,
            (status, wanted, now_ms(), hive_id),
            _Change(hive_id, f"hive {hive_id} is {status}{wish} in the hive catalog", by),
        )

    async def remove(self, hive_id: str, *, by: Actor | None = None) -> bool:
        """Was there such a hive?"""
        change = _Change(hive_id, f"hive {hive_id} is removed from the hive catalog", by)
        return await self._write("DELETE FROM hives WHERE id = ?", (hive_id,), change) > 0

    async def report(self) -> CatalogReport:
        """What the file is, with every page and index looked at; CatalogUnusable if it is damaged."""

        def look() -> CatalogReport:
            (verdict,) = self._connection.execute("PRAGMA integrity_check(1)").fetchone()
            if verdict != "ok":
                raise CatalogUnusable(f"{self._path} is damaged: {verdict}", hint=way_out(self._path))
            (version,) = self._connection.execute("PRAGMA user_version").fetchone()
            (hives,) = self._connection.execute("SELECT count(*) FROM hives").fetchone()
            return CatalogReport(str(self._path), version, hives, self._path.stat().st_size)

        return await self._run(look)

    async def backup(self) -> BinaryIO:
        """A consistent copy as one file without a name, to be closed by who has read it."""

        def copy_aside() -> BinaryIO:
            # In the daemon's own /tmp (PrivateTmp=): the catalog's disk may be the one that is full.
            with TemporaryDirectory(prefix="backup-") as place:
                path = Path(place, "catalog.db")
                copy(self._connection, path)
                return path.open("rb")

        return await self._run(copy_aside)

    async def _write(self, statement: str, values: tuple[object, ...], change: _Change) -> int:
        """The number of rows that were written; where it is not 0, the journal is told."""

        def write() -> int:
            count = self._connection.execute(statement, values).rowcount
            # In this thread: who waits for the write may be cancelled, and it is made all the same.
            if count > 0:
                self._journal.narrate(CATALOG_CHANGED, change.text, hive=change.hive_id, **change.actor())
            self._tell_wanted()
            return count

        return await self._run(write)

    def _tell_wanted(self) -> None:
        found = self._connection.execute("SELECT EXISTS (SELECT 1 FROM hives WHERE wanted)")
        (is_wanted,) = found.fetchone()
        try:
            self._wanted(bool(is_wanted))
        except OSError as error:
            # The row counts, and is written; what is lost is that the next boot wakes the queen.
            log.warning("the next boot may not do as the hive catalog says: %s", error)

    async def _run(self, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError) as error:
            told, hint = trouble(self._path, error)
            raise CatalogFailed(f"the hive catalog {told}", hint=hint) from error

    def _find(self, hive_id: str) -> Row | None:
        found = self._connection.execute(_SELECT + " WHERE id = ?", (hive_id,)).fetchone()
        return _row(found) if found else None


@dataclass(frozen=True, slots=True)
class _Change:
    """What a write means, as the journal tells it once the write is made."""

    hive_id: str
    text: str
    by: Actor | None

    def actor(self) -> Actor:
        return self.by or {"actor_uid": str(os.geteuid()), "actor_pid": str(os.getpid())}


_SELECT = "SELECT id, host, port, status, devices, created_at_ms, updated_at_ms, wanted FROM hives"


def _row(found: tuple[str, str, int, Status, str | None, int, int, int]) -> Row:
    hive_id, host, port, status, stored, created_at_ms, updated_at_ms, wanted = found
    try:
        devices = decode(Devices, json.loads(stored)) if stored is not None else None
    except (ValueError, BadInput):
        # Written by another version: unknown, and asked for again at the hive's next start.
        devices = None
    return Row(hive_id, host, port, status, devices, created_at_ms, updated_at_ms, bool(wanted))


def _make(path: Path) -> None:
    """A new catalog, aside until it is whole: a kill in the middle leaves no file that is half one."""
    part = path.with_name(f"{path.name}.new")
    for leftover in (part, Path(f"{part}-journal")):
        leftover.unlink(missing_ok=True)
    with closing(_connect(part)) as connection:
        _migrate(connection)
    os.rename(part, path)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)


def _migrate(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, statement in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")
