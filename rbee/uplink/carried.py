"""A connection that a hive has dialled, at the queen's end: she asks over it."""

from __future__ import annotations

import asyncio
from typing import Any

from rbee.server.upgrade import Upgraded

BUFFER = 64 * 1024
"""Bytes of an answer that have come and were not read yet; more are left in the socket."""


class Carried(Upgraded):
    """A dialled connection as httpcore reads and writes it; `comes` is who waits for it."""

    def __init__(self, comes: asyncio.Future[Carried]) -> None:
        super().__init__()
        self._comes = comes
        self._received = bytearray()
        self._news = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self.is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._comes.done():
            self.close()
        else:
            self._comes.set_result(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) > BUFFER and self.transport is not None:
            self.transport.pause_reading()
        self._news.set()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.is_over = True
        self._news.set()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._drained.clear()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._drained.set()

    # A stream of httpcore's. Its timeouts are those of whoever asks.

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has come; b'' at the end."""
        while not self._received and not self.is_over:
            self._news.clear()
            await self._news.wait()
        data = bytes(self._received[:max_bytes])
        del self._received[:max_bytes]
        if self.transport is not None and not self.is_over:
            self.transport.resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self.transport is None or self.is_over:
            raise ConnectionResetError("the connection is closed")
        self.transport.write(buffer)
        await self._drained.wait()

    async def aclose(self) -> None:
        self.close()

    def get_extra_info(self, info: str) -> Any:
        # Of one that nothing is asked over: anything that comes makes it one not to be used any more.
        return (self.is_over or bool(self._received)) if info == "is_readable" else None

    def close(self) -> None:
        self.is_over = True
        self._news.set()
        if self.transport is not None:
            self.transport.abort()
