"""Streams of server-sent events that several clients read, each from its own position."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator

from rbee.wire.sse import COMMENT, KEEP_ALIVE


class Growth:
    """Wakes the readers of a growing stream, until it ends."""

    def __init__(self) -> None:
        self._grown = asyncio.Event()

    def announce(self) -> None:
        """Wake the readers: there is more to read, or the stream has ended."""
        self._grown.set()
        self._grown = asyncio.Event()

    async def follow(
        self, unread: Callable[[], Iterator[bytes]], is_ended: Callable[[], bool]
    ) -> AsyncGenerator[bytes, None]:
        """Yield what is `unread` by one reader, as it comes; a COMMENT after KEEP_ALIVE seconds without."""
        while True:
            grown = self._grown
            # Checked before reading: what comes while this is sent, even the end, is read in the next round.
            was_ended = is_ended()
            for chunk in unread():
                yield chunk
            if was_ended:
                return
            try:
                async with asyncio.timeout(KEEP_ALIVE):
                    await grown.wait()
            except TimeoutError:
                yield COMMENT


class Reading(AsyncIterator[bytes]):
    """One reader's stream, which begins with `first`. `release` is called once, at its end or by aclose()."""

    def __init__(self, rest: AsyncGenerator[bytes, None], first: bytes, release: Callable[[], None]) -> None:
        self._rest = rest
        self._first = first
        self._release: Callable[[], None] | None = release

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        try:
            return await anext(self._rest)
        except BaseException:
            self._give_back()
            raise

    async def aclose(self) -> None:
        """End the stream, however much of it was read."""
        self._give_back()
        await self._rest.aclose()

    def _give_back(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()
