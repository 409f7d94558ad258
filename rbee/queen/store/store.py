"""The hive catalog: a store for each subject, on an engine that is chosen here."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from rbee.narration import Narrator
from rbee.queen.metrics import Metrics
from rbee.queen.store.audit import AuditStore
from rbee.queen.store.engine import Engine
from rbee.queen.store.hives import HiveStore
from rbee.queen.store.keys import KeyStore
from rbee.queen.store.models import ModelStore
from rbee.queen.store.records import now_ms
from rbee.queen.store.sqlite import SQLite
from rbee.queen.store.tokens import TokenStore
from rbee.queen.store.writer import Writer
from rbee.scope import SYSTEM, Scope

if TYPE_CHECKING:
    from rbee.wire.catalog import CatalogReport


class Store:
    """The hive catalog.

    A write that was awaited is on the disk, and seen by every read after it. A read waits for no write.
    A failure of the database raises CatalogFailed, with the cause and a cure.
    """

    def __init__(self, engine: Engine, writer: Writer, scope: Scope) -> None:
        self.engine = engine
        self.writer = writer
        self.hives = HiveStore(engine, writer, scope)
        self.tokens = TokenStore(engine, writer, scope)
        self.models = ModelStore(engine, writer, scope)
        self.keys = KeyStore(engine, writer, scope)
        self.audit = AuditStore(engine)

    @classmethod
    def open(
        cls,
        path: Path,
        journal: Narrator | None = None,
        *,
        wanted: Callable[[bool], None] = lambda is_wanted: None,
        metrics: Metrics | None = None,
        find_daemons: Callable[[], Collection[int]] = lambda: (),
        now_ms: Callable[[], int] = now_ms,
        open_engine: Callable[[Path, Metrics, Scope], Engine] = SQLite.open,
        scope: Scope = SYSTEM,
    ) -> Store:
        """Open or create the catalog and migrate it to this version; CatalogUnusable leaves it as it was.

        After each write, in the engine's thread, `journal` gets a line about each change, and `wanted` is
        called with whether any hive is desired. Changes that the uids of `find_daemons` make without a job
        count as made by machines in the audit.
        """
        engine = open_engine(path, metrics or Metrics(), scope)
        writer = Writer(engine, journal or Narrator(), wanted, find_daemons, now_ms)
        try:
            writer.begin()
        except BaseException:
            engine.close()
            raise
        return cls(engine, writer, scope)

    def close(self) -> None:
        """Finish the pending writes and close the database."""
        self.engine.close()

    async def check(self) -> CatalogReport:
        """Read all of the catalog; CatalogUnusable if it is damaged, TimedOut if that takes too long."""
        return await self.engine.check()

    async def copy(self) -> BinaryIO:
        """Return a consistent copy: an open, unnamed file, which the caller closes.

        Raises TooMany if as many copies as allowed are being made or sent.
        """
        return await self.engine.copy()
