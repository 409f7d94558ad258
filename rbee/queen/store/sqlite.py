"""SQLite as an engine: one connection with a thread for writes, and two connections for reads.

An acknowledged write has reached the disk: WAL with synchronous=FULL calls fdatasync(2) for the log at
each commit. NORMAL leaves that to the next checkpoint: after a power loss the catalog would be intact,
but without the last commits (https://sqlite.org/pragma.html#pragma_synchronous).

In WAL mode a read waits for no write and sees every commit that was made before it began
(https://sqlite.org/wal.html#concurrency): a small read is done in the event loop's own thread, in less
time than handing it to another thread takes.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Generic, TypeVar

from rbee import catalogfile
from rbee.catalogfile import APPLICATION_ID, LOGS, Lock, log_of, way_out
from rbee.errors import CatalogFailed, CatalogUnusable
from rbee.queen.metrics import Metrics
from rbee.queen.store.copies import Copies
from rbee.queen.store.engine import Engine, Session, Value
from rbee.queen.store.failure import explain
from rbee.scope import Scope

if TYPE_CHECKING:
    from rbee.wire.catalog import CatalogReport

Result = TypeVar("Result")

BUSY_TIMEOUT = catalogfile.BUSY_TIMEOUT
"""Seconds that a write waits for another process that keeps the catalog locked (such as an sqlite3 shell)."""

WRITES_TOGETHER = 64
"""The most pending writes that are made in one transaction, with one fsync for all."""

SCHEMA = Path(__file__).with_name("schema")
"""NNNN.sql migrates a catalog from the version before to version NNNN, which is its PRAGMA user_version;
compatible.sql is run at each start."""


class SQLite(Engine):
    """An SQLite file, and the lock on its folder."""

    def __init__(
        self, path: Path, lock: Lock, connection: sqlite3.Connection, metrics: Metrics, scope: Scope
    ) -> None:
        self._path = path
        self._scope = scope
        self._lock = lock
        self._metrics = metrics
        self._connection = connection
        self._quick = _open_reader(path, timeout=0)
        self._reader = _open_reader(path, timeout=BUSY_TIMEOUT)
        self._waiting: deque[_Write[Any]] = deque()
        self._writing = ThreadPoolExecutor(max_workers=1, thread_name_prefix="catalog")
        self._reading = ThreadPoolExecutor(max_workers=1, thread_name_prefix="catalog-reading")
        self._copies = Copies(path, scope)

    @classmethod
    def open(cls, path: Path, metrics: Metrics, scope: Scope) -> SQLite:
        """Open or create the catalog and migrate it to this version; CatalogUnusable leaves it as it was."""
        with ExitStack() as if_it_fails:
            try:
                lock = if_it_fails.enter_context(
                    Lock.take(path, timeout=catalogfile.LOCK_TIMEOUT, scope=scope)
                )
                if _is_there(path, scope):
                    catalogfile.check(
                        path,
                        newest=len(_schema_files()),
                        busy_timeout=BUSY_TIMEOUT,
                        way_out=way_out(scope),
                        scope=scope,
                    )
                else:
                    _make(path, lock)
                connection = _connect(path, timeout=BUSY_TIMEOUT)
                if_it_fails.callback(connection.close)
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                _keep_copy(connection, path, lock)
                _migrate(connection)
                engine = cls(path, lock, connection, metrics, scope)
            except (sqlite3.Error, OSError) as error:
                raise explain(CatalogUnusable, path, error, scope, way_out=way_out(scope)) from error
            if_it_fails.pop_all()
        return engine

    def close(self) -> None:
        """Finish the pending writes, then close."""
        self._copies.close()
        self._reading.shutdown(cancel_futures=True)
        self._writing.shutdown()
        # The last connection to close writes the log back, which a read-only one cannot.
        for connection in (self._quick, self._reader, self._connection):
            connection.close()
        self._lock.close()

    def read_now(self, work: Callable[[Session], Result]) -> Result:
        with self._explained():
            return work(_Session(self._quick))

    async def read(self, work: Callable[[Session], Result]) -> Result:
        with self._metrics.catalog_timed("read"):
            try:
                return work(_Session(self._quick))
            except sqlite3.Error:
                # Perhaps locked by another process: the event loop must not wait for that.
                return await self._in_reading_thread(work)

    async def read_all(self, work: Callable[[Session], Result]) -> Result:
        with self._metrics.catalog_timed("read"):
            return await self._in_reading_thread(work)

    async def _in_reading_thread(self, work: Callable[[Session], Result]) -> Result:
        def read() -> Result:
            with self._explained():
                return work(_Session(self._reader))

        return await asyncio.get_running_loop().run_in_executor(self._reading, read)

    async def write(self, work: Callable[[Session], Result], committed: Callable[[Result], None]) -> Result:
        write = _Write(work, committed)
        self._waiting.append(write)
        self._writing.submit(self._write_waiting)
        return await asyncio.wrap_future(write.outcome)

    def _write_waiting(self) -> None:
        """Make the pending writes in their order; one that was cancelled before it began is dropped."""
        group: list[_Write[Any]] = []
        while self._waiting and len(group) < WRITES_TOGETHER:
            write = self._waiting.popleft()
            if write.outcome.set_running_or_notify_cancel():
                group.append(write)
        if len(group) < 2 or not self._write_together(group):
            for write in group:
                self._write_alone(write)

    def _write_together(self, group: list[_Write[Any]]) -> bool:
        """Make several writes in one transaction. Return False, with none of them made, if one fails."""
        began = time.perf_counter()
        try:
            with self._transaction():
                results = [write.work(_Session(self._connection)) for write in group]
        except Exception:
            return False  # they are retried one by one, so that only the failing one fails
        for write, result in zip(group, results, strict=True):
            self._metrics.catalog_seconds["write"].observe(time.perf_counter() - began)
            write.end(result)
        return True

    def _write_alone(self, write: _Write[Any]) -> None:
        try:
            with self._explained(), self._metrics.catalog_timed("write"), self._transaction():
                result = write.work(_Session(self._connection))
        except BaseException as error:
            write.outcome.set_exception(error)
        else:
            write.end(result)

    async def check(self) -> CatalogReport:
        return await self._copies.check()

    async def copy(self) -> BinaryIO:
        return await self._copies.copy()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # SQLite itself ends it if the disk is full
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn SQLite's errors into ours. Not in the event loop: finding the cause may write to the disk."""
        try:
            yield
        except sqlite3.Error as error:
            cure = way_out(self._scope, is_open=True)
            raise explain(CatalogFailed, self._path, error, self._scope, way_out=cure) from error


class _Write(Generic[Result]):
    """A pending write."""

    def __init__(self, work: Callable[[Session], Result], committed: Callable[[Result], None]) -> None:
        self.work = work
        self._committed = committed
        self.outcome: Future[Result] = Future()

    def end(self, result: Result) -> None:
        """Report that it is on the disk, with the result of its work."""
        try:
            self._committed(result)
        except BaseException as error:
            self.outcome.set_exception(error)
        else:
            self.outcome.set_result(result)


class _Session:
    """A connection as a Session. Each query is read to its end; otherwise the next would see old data."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def rows(self, statement: str, **values: Value) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, values).fetchall()

    def execute(self, statement: str, **values: Value) -> int:
        return self._connection.execute(statement, values).rowcount


def _connect(name: str | Path, *, timeout: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        name, uri=True, timeout=timeout, isolation_level=None, check_same_thread=False
    )
    connection.text_factory = _text
    return connection


def _open_reader(path: Path, *, timeout: float) -> sqlite3.Connection:
    return _connect(f"{path.absolute().as_uri()}?mode=ro", timeout=timeout)


def _text(stored: bytes) -> str:
    """Decode a text, which SQLite does not check; Python would fail the whole query if it is not UTF-8."""
    return stored.decode(errors="backslashreplace")


# The file, and its schema


def _schema_files() -> list[Path]:
    return sorted(SCHEMA.glob("[0-9]*.sql"))


def _is_there(path: Path, scope: Scope) -> bool:
    """Return whether there is a catalog; CatalogUnusable if there are only parts of one."""
    if catalogfile.unfinished_restore(path).exists():
        raise CatalogUnusable(f"the restore of {path} was interrupted", hint=way_out(scope))
    if os.path.lexists(path):
        return True
    for log in (log_of(path, suffix) for suffix in LOGS):
        if log.exists() and log.stat().st_size:
            # SQLite would take it for the log of the new catalog.
            raise CatalogUnusable(f"{path} is missing, but its log {log} exists", hint=way_out(scope))
        log.unlink(missing_ok=True)
    return False


def _make(path: Path, lock: Lock) -> None:
    """Create an empty catalog beside `path` and rename it, so that it is complete or absent."""
    new = Path(f"{path}.creating")
    new.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(new, isolation_level=None)) as connection:
            # A half-made file is of no use, so it needs no protection.
            connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute("PRAGMA synchronous = OFF")
            _migrate(connection)
        with new.open("rb") as made:
            os.fsync(made.fileno())
        new.rename(path)
        lock.sync()
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


def _keep_copy(connection: sqlite3.Connection, path: Path, lock: Lock) -> None:
    """Keep a copy before a migration: after a downgrade the previous release refuses the migrated catalog."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version in (0, len(_schema_files())):
        return
    copy = path.with_name(f"{path.stem}-{version}{path.suffix}")
    new = copy.with_name(f"{copy.name}.new")
    new.unlink(missing_ok=True)
    try:
        connection.execute("VACUUM INTO ?", (os.fspath(new),))
        with new.open("rb") as made:
            os.fsync(made.fileno())
        new.rename(copy)
        lock.sync()
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


def _migrate(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, file in enumerate(_schema_files()[version:], start=version + 1):
        marks = f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number};"
        # One transaction: if it fails, closing the connection rolls it back.
        connection.executescript(f"BEGIN IMMEDIATE;\n{file.read_text()}\n{marks} COMMIT;")
    connection.executescript((SCHEMA / "compatible.sql").read_text())
