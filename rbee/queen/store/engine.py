"""The interface between the stores and a database; each supported database is a subclass in its own file.

The stores' statements are SQL that every database understands, with named values (`:id`): no types or
functions of one database only, no booleans (0 and 1 instead), and text is ordered by its bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, TypeVar

if TYPE_CHECKING:
    from rbee.wire.catalog import CatalogReport


Result = TypeVar("Result")

Value = str | int | None


class Session(Protocol):
    """A snapshot of the database, or a transaction: for one call, in one thread."""

    def rows(self, statement: str, **values: Value) -> list[tuple[Any, ...]]:
        """Run a query and return all of its rows."""

    def execute(self, statement: str, **values: Value) -> int:
        """Run a change and return how many rows it changed."""


class Engine(ABC):
    """An open database. Its failures raise CatalogFailed, with the cause and a cure.

    A commit is seen by every read that begins afterwards.
    """

    @abstractmethod
    def read_now(self, work: Callable[[Session], Result]) -> Result:
        """Read a few rows in the calling thread, before the event loop runs."""

    @abstractmethod
    async def read(self, work: Callable[[Session], Result]) -> Result:
        """Read a few rows by their keys. It waits for no write."""

    @abstractmethod
    async def read_all(self, work: Callable[[Session], Result]) -> Result:
        """Read many rows, off the event loop. It waits for no write."""

    @abstractmethod
    async def write(self, work: Callable[[Session], Result], committed: Callable[[Result], None]) -> Result:
        """Run `work` in a transaction, off the event loop, and return its result once it is on the disk.

        Writes are serialized, in the order of the calls. If the work raises an error, nothing of it is
        written; otherwise `committed` is then called with the result, in the same thread, even if the caller
        no longer waits. Several writes may share a transaction. The work may be run again after a failure:
        it must change nothing but the tables.
        """

    @abstractmethod
    async def check(self) -> CatalogReport:
        """Read all of the database; CatalogUnusable if that shows damage, TimedOut if it takes too long."""

    @abstractmethod
    async def copy(self) -> BinaryIO:
        """Return a consistent copy: an open, unnamed file, which the caller closes.

        Raises TooMany if as many copies as allowed are being made or sent.
        """

    @abstractmethod
    def close(self) -> None:
        """Finish the pending writes, interrupt reads, and close the database."""
