"""The hive's route for its memory book."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from rbee.server.app import Handler
from rbee.wire.routes import HiveRoutes, Route

if TYPE_CHECKING:
    from rbee.hive.memory.book import Book
    from rbee.wire.workers import Memory


def routes(book: Callable[[], Book]) -> dict[Route[Any], Handler]:
    """Return the handlers; `book` opens the book at its first use, so that a hive starts without it."""

    async def memory(_request: Request) -> Memory:
        return await book().memory()

    return {HiveRoutes.MEMORY: memory}
