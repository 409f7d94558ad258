"""Streams of server-sent events that several clients read, each from its own position."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from functools import partial

from rbee.server.responses import Push
from rbee.wire.sse import COMMENT, KEEP_ALIVE


class Growth:
    """Wakes the readers of a growing stream, until it ends.

    A reader whose client keeps up is not woken: what has come is pushed to it, for a third of the cost. All
    readers share one timer.
    """

    def __init__(self) -> None:
        self.wakes = 0
        """How often there was something for the readers."""
        self._waiting: dict[Reading, asyncio.Future[bool]] = {}
        self._timer: asyncio.Handle | None = None

    def announce(self) -> None:
        """Wake the readers: there is more to read, or the stream has ended."""
        self.wakes += 1
        if self._waiting:
            if self._timer is not None:
                self._timer.cancel()
            # Not at once: whoever narrates does not wait for the readers.
            self._timer = asyncio.get_running_loop().call_soon(self._hand_out)

    async def wait(self, reading: Reading) -> bool:
        """Wait until there is something that is not pushed to the reading; return whether it is a COMMENT."""
        self._waiting[reading] = asyncio.get_running_loop().create_future()
        if self._timer is None:
            self._start_timer()
        try:
            return await self._waiting[reading]
        finally:
            del self._waiting[reading]

    def _hand_out(self, *, is_silence: bool = False) -> None:
        for reading, woken in self._waiting.items():
            if not reading.try_push(is_silence=is_silence) and not woken.done():
                woken.set_result(is_silence)
        self._timer = None
        if self._waiting:
            self._start_timer()

    def _start_timer(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(KEEP_ALIVE, partial(self._hand_out, is_silence=True))


class Reading(AsyncIterator[bytes]):
    """One reader's stream: `first`, and what is `unread`, as it comes, until it is ended.

    After KEEP_ALIVE seconds without a chunk there is a COMMENT. `release` is called once, at its end or by
    aclose().
    """

    def __init__(
        self,
        growth: Growth,
        unread: Callable[[], Iterator[bytes]],
        is_ended: Callable[[], bool],
        *,
        first: bytes = b"",
        release: Callable[[], None] | None = None,
    ) -> None:
        self.push: Push | None = None
        """If set, chunks that come while the reader waits for one are pushed."""
        self._growth = growth
        self._unread = unread
        self._is_ended = is_ended
        self._first = first
        self._release = release
        self._chunks = self._follow()

    def __anext__(self) -> Awaitable[bytes]:
        return anext(self._chunks)

    async def aclose(self) -> None:
        """End the stream, however much of it was read."""
        self._give_back()
        await self._chunks.aclose()

    def try_push(self, *, is_silence: bool) -> bool:
        """Push what has come, or a COMMENT; return False if the reader must be woken to read the rest."""
        if self.push is None or self._is_ended():
            return False
        return self.push((COMMENT,) if is_silence else self._unread())

    async def _follow(self) -> AsyncGenerator[bytes, None]:
        try:
            if self._first:
                yield self._first
            while True:
                wakes = self._growth.wakes
                # Before reading: what comes while this is sent, even the end, is read in the next round.
                was_ended = self._is_ended()
                for chunk in self._unread():
                    yield chunk
                if was_ended:
                    return
                if wakes == self._growth.wakes and await self._growth.wait(self):
                    yield COMMENT
        finally:
            self._give_back()

    def _give_back(self) -> None:
        release, self._release = self._release, None
        if release is not None:
            release()
