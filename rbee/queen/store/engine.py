"""What a database must do for the stores; each that can is a subclass in a file of its own.

Statements of the stores are SQL that every database understands, with values by name (`:id`): no types or
functions of one database, no booleans (0 and 1 instead), and text is ordered by its bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol, TypeVar

from rbee.wire.catalog import CatalogReport

Result = TypeVar("Result")

Value = str | int | None


class Session(Protocol):
    """One moment of the database, or one transaction: for one call, in one thread."""

    def rows(self, statement: str, **values: Value) -> list[tuple[Any, ...]]:
        """Run a query and return all of its rows."""

    def execute(self, statement: str, **values: Value) -> int:
        """Run a change and return how many rows it changed."""


class Engine(ABC):
    """A database, open. What it refuses is CatalogFailed, with the cause and the cure.

    What has been committed is seen by every read that begins afterwards.
    """

    @abstractmethod
    def read_now(self, work: Callable[[Session], Result]) -> Result:
        """Read a row or a few in the calling thread, before the event loop runs."""

    @abstractmethod
    async def read(self, work: Callable[[Session], Result]) -> Result:
        """Read a row or a few, found by a key. It waits for no write."""

    @abstractmethod
    async def read_all(self, work: Callable[[Session], Result]) -> Result:
        """Read what may be long, off the event loop. It waits for no write."""

    @abstractmethod
    async def write(self, work: Callable[[Session], Result], committed: Callable[[Result], None]) -> Result:
        """Run `work` in a transaction, off the event loop, and return its result once that is on the disk.

        Writes are made in the order in which they are asked for, and none comes between what another reads
        and what it writes. All of one counts or, when its work raises an error, none. Then `committed` gets
        the result, in the same thread, whether or not the caller still waits. Several may be one
        transaction. The work may be run again after a failure: it must change nothing but the tables.
        """

    @abstractmethod
    async def check(self) -> CatalogReport:
        """Read all of the database; CatalogUnusable if that shows damage, TimedOut if it takes too long."""

    @abstractmethod
    async def copy(self) -> BinaryIO:
        """Return a sound copy of one moment: an open file without a name, for the caller to close.

        TooMany if as many as allowed are being made or sent.
        """

    @abstractmethod
    def close(self) -> None:
        """End what is going on and close the database."""
