"""What a database must do for the stores; each that can is a subclass in a file of its own.

Stores ask for it in SQL that every database understands, with values by name (`:id`). What a statement may
not use: types and functions of one database alone, booleans (there are 0 and 1), and an order of text
other than by its bytes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, BinaryIO, Protocol, TypeVar

from rbee.contracts import CatalogReport

Result = TypeVar("Result")

Value = str | int | None


class Session(Protocol):
    """One moment of the database, or one transaction: for the time of one call, in one thread."""

    def rows(self, statement: str, **values: Value) -> list[tuple[Any, ...]]:
        """Run a query and return all of its rows."""

    def execute(self, statement: str, **values: Value) -> int:
        """Run a change and return the number of rows that it concerned."""


class Engine(ABC):
    """A database, open. What it refuses is CatalogFailed, with the cause and the cure.

    What has been committed is seen by every read that begins afterwards.
    """

    @abstractmethod
    def read_now(self, work: Callable[[Session], Result]) -> Result:
        """Read a little in the calling thread, for at most as long as a file's page takes to come."""

    @abstractmethod
    async def read(self, work: Callable[[Session], Result]) -> Result:
        """Read a row or a few, found by a key. It waits for no write."""

    @abstractmethod
    async def read_all(self, work: Callable[[Session], Result]) -> Result:
        """Read what may be long, off the event loop. It waits for no write."""

    @abstractmethod
    async def write(self, work: Callable[[Session], Result], committed: Callable[[Result], None]) -> Result:
        """Run `work` as one transaction, off the event loop, and return its result once that is on the disk.

        No other write comes between what the work reads and what it writes. All of it counts or, when the
        work raises an error, none. Then `committed` gets the result, in the same thread, whether or not
        the caller still waits. The work may be run again after a failure: it must change nothing else.
        """

    @abstractmethod
    async def check(self) -> CatalogReport:
        """Read all there is; CatalogUnusable if that shows damage, TimedOut if it takes too long."""

    @abstractmethod
    async def copy(self) -> BinaryIO:
        """Return a sound copy of one moment: an open file without a name, for the caller to close.

        TooMany where as many as there may be are being made or sent.
        """

    @abstractmethod
    def close(self) -> None:
        """End what is going on and close the database."""
