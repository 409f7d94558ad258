"""Reads all of an SQLite catalog, as another process would: to check it, or to copy it for a backup.

Each operation has its own connection, in a separate thread: neither reads nor writes wait for it.
"""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from rbee import catalogfile
from rbee.catalogfile import way_out
from rbee.errors import CatalogFailed, TimedOut, TooMany
from rbee.files import no_temporary_folder, temporary_folder, trouble
from rbee.queen.store.failure import explain
from rbee.scope import Scope

if TYPE_CHECKING:
    from rbee.wire.catalog import CatalogReport

Result = TypeVar("Result")
GoesOn = Callable[[], bool]

READ_TIMEOUT = 8.0
"""Seconds for a check or a copy of the whole catalog, once it has begun."""

WAIT_TIMEOUT = 16.0
"""Seconds for which one waits for others; with READ_TIMEOUT less than the keeper waits for either."""

COPIES_MAX = 4
"""Copies of the catalog that are made or sent at once; further requests are refused."""


class Copies:
    """Checks and copies of the catalog at `path`, one at a time. Failures raise CatalogFailed."""

    def __init__(self, path: Path, scope: Scope) -> None:
        self._path = path
        self._scope = scope
        self._way_out = way_out(scope, is_open=True)
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="catalog-copies")
        self._copying = 0
        self._copies: list[BinaryIO] = []
        self._is_closing = False

    def close(self) -> None:
        """Interrupt a check or copy in progress."""
        self._is_closing = True
        self._thread.shutdown(cancel_futures=True)

    async def check(self) -> CatalogReport:
        """Read all of the catalog. Raises CatalogUnusable if it is damaged, or TimedOut."""
        return await self._read(self._check)

    async def copy(self) -> BinaryIO:
        """Return a consistent copy: an open, unnamed file, which the caller closes.

        Raises TooMany or TimedOut.
        """
        self._copies = [copy for copy in self._copies if not copy.closed]
        if self._copying + len(self._copies) >= COPIES_MAX:
            raise TooMany(
                f"{COPIES_MAX} copies of the hive catalog are being made or sent, and no more at once",
                hint="Ask again when one is done.",
            )
        self._copying += 1
        try:
            copy = await self._read(self._copy)
        finally:
            self._copying -= 1
        self._copies.append(copy)
        return copy

    async def _read(self, work: Callable[[GoesOn], Result]) -> Result:
        """Do `work` in the thread; it is interrupted after READ_TIMEOUT and by close()."""
        requested = time.monotonic()

        def read() -> Result:
            began = time.monotonic()
            if began - requested > WAIT_TIMEOUT:
                raise TimedOut(
                    f"other checks and copies of {self._path} took longer than {WAIT_TIMEOUT:g} s",
                    hint="Ask again.",
                )

            def goes_on() -> bool:
                return not self._is_closing and time.monotonic() - began < READ_TIMEOUT

            try:
                return work(goes_on)
            except (sqlite3.Error, OSError) as error:
                if _is_cut_off(error):
                    raise TimedOut(
                        f"reading all of {self._path} took longer than {READ_TIMEOUT:g} s", hint="Ask again."
                    ) from error
                raise explain(CatalogFailed, self._path, error, self._scope, way_out=self._way_out) from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, read)

    def _check(self, goes_on: GoesOn) -> CatalogReport:
        return catalogfile.check(
            self._path,
            is_thorough=True,
            reads_rows=True,
            way_out=self._way_out,
            scope=self._scope,
            goes_on=goes_on,
        )

    def _copy(self, goes_on: GoesOn) -> BinaryIO:
        try:
            with temporary_folder("catalog-", CatalogFailed) as folder:
                copy = folder / "catalog.db"
                _back_up(self._path, copy, goes_on)
                catalogfile.check(
                    copy,
                    name=self._path,
                    is_thorough=True,
                    way_out=self._way_out,
                    scope=self._scope,
                    goes_on=goes_on,
                )
                return copy.open("rb")
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, TimeoutError) or catalogfile.is_damage(error):
                raise
            cause = trouble(Path(tempfile.gettempdir()))
            if cause is None:
                raise
            raise no_temporary_folder(cause, CatalogFailed) from error


def _back_up(path: Path, copy: Path, goes_on: GoesOn) -> None:
    """Copy a catalog that is in use to a new file. Raises TimeoutError once `goes_on` returns False."""

    def progress(_status: int, _left: int, _all: int) -> None:
        if not goes_on():
            raise TimeoutError

    uri = f"{path.absolute().as_uri()}?mode=ro"
    timeout = catalogfile.BUSY_TIMEOUT
    with closing(sqlite3.connect(uri, uri=True, timeout=timeout, isolation_level=None)) as source:
        # One transaction: otherwise each write meanwhile would restart the copy.
        source.execute("BEGIN")
        source.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        with closing(sqlite3.connect(copy, isolation_level=None)) as target:
            target.execute("PRAGMA synchronous = OFF")
            source.backup(target, pages=256, progress=progress)
            # A single file, without a log beside it.
            target.execute("PRAGMA journal_mode = DELETE")


def _is_cut_off(error: BaseException) -> bool:
    return isinstance(error, TimeoutError) or catalogfile.error_code(error) == sqlite3.SQLITE_INTERRUPT
