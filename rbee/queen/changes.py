"""Changes that tasks wait for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress


class Changes:
    """At each change calls `heard`, then wakes everybody who waits, in the order in which they came."""

    def __init__(self, heard: Callable[[], None] = lambda: None) -> None:
        self._heard = heard
        self._waiting: dict[asyncio.Future[None], None] = {}

    def announce(self) -> None:
        """Wake everybody who waits."""
        self._heard()
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def wait(self, timeout: float) -> None:
        """Wait for a change, at most `timeout` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._next()

    async def until(self, is_so: Callable[[], bool], *, timeout: float | None = None) -> None:
        """Wait until `is_so` returns True; it is called now and after each change.

        Raises TimeoutError after `timeout` seconds; None is no limit.
        """
        async with asyncio.timeout(timeout):
            while not is_so():
                await self._next()

    async def _next(self) -> None:
        waiting = asyncio.get_running_loop().create_future()
        self._waiting[waiting] = None
        try:
            await waiting
        finally:
            del self._waiting[waiting]
