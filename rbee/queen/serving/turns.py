"""Turns of placements: on one hive one after the other, so that no two take the same memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary


class Turns:
    """A lock for each hive, while somebody holds it or waits for it: a slow hive holds up only its own."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def on(self, hives: Iterable[str]) -> AsyncIterator[None]:
        """Wait for the turn on all of these hives, and have it within the context."""
        async with AsyncExitStack() as turns:
            for name in sorted(set(hives)):  # all in the same order, or two could wait for each other
                await turns.enter_async_context(self._lock(name))
            yield

    def _lock(self, name: str) -> asyncio.Lock:
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock
