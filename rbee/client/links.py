"""Several kept connections of a daemon to another, for requests that are sent at once."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from rbee.client.link import Link
from rbee.scope import SYSTEM, Scope
from rbee.wire.routes import Answer, Route

AT_ONCE = 64
"""Requests at once; more wait for their turn."""

KEPT = 4
"""Idle connections that are kept."""


class Links:
    """As Link, to a Unix socket, with a connection for each request that is under way."""

    def __init__(self, place: Path, *, timeout: float, scope: Scope = SYSTEM) -> None:
        self._place = place
        self._timeout = timeout
        self._scope = scope
        self._idle: list[Link] = []
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def ask(
        self,
        route: Route[Answer],
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """As Link.ask()."""
        async with self._turns:
            link = self._idle.pop() if self._idle else self._new()
            try:
                return await link.ask(route, body, headers=headers, timeout=timeout)
            finally:
                if len(self._idle) < KEPT:
                    self._idle.append(link)
                else:
                    await link.close()

    def _new(self) -> Link:
        return Link(self._place, timeout=self._timeout, scope=self._scope)

    async def close(self) -> None:
        """Close the connections that are kept."""
        while self._idle:
            await self._idle.pop().close()
