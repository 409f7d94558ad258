"""The queen's end of a connection that a hive has dialled for requests."""

from __future__ import annotations

import asyncio
from typing import Any

from rbee.server.upgrade import Upgraded

BUFFER = 64 * 1024
"""Bytes of an answer that are received but not read yet; more are left in the socket."""


class Carried(Upgraded):
    """A dialled connection as httpcore reads and writes it; it becomes the result of `coming`."""

    def __init__(self, coming: asyncio.Future[Carried]) -> None:
        super().__init__()
        self._coming = coming
        self._received = bytearray()
        self._has_changed = asyncio.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        self.is_over = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._coming.done():
            self.close()
        else:
            self._coming.set_result(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if len(self._received) > BUFFER and self.transport is not None:
            self.transport.pause_reading()
        self._has_changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.is_over = True
        self._has_changed.set()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._drained.clear()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._drained.set()

    # The interface of httpcore's streams. `timeout` is ignored: Uplink.ask() bounds the whole request.

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """Return up to `max_bytes` bytes as soon as any have come; b'' at the end, also if it was broken."""
        while not self._received and not self.is_over:
            self._has_changed.clear()
            await self._has_changed.wait()
        data = bytes(self._received[:max_bytes])
        del self._received[:max_bytes]
        if self.transport is not None and not self.is_over:
            self.transport.resume_reading()
        return data

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send data and wait until the socket has taken it. Raises ConnectionResetError."""
        if self.transport is None or self.is_over:
            raise ConnectionResetError("the connection is closed")
        self.transport.write(buffer)
        await self._drained.wait()

    async def aclose(self) -> None:
        """As close()."""
        self.close()

    def get_extra_info(self, info: str) -> Any:
        """Return httpcore's 'is_readable', None for anything else."""
        # Asked of an idle connection: if anything has come, it cannot be used any more.
        return (self.is_over or bool(self._received)) if info == "is_readable" else None

    def close(self) -> None:
        """End the connection at once."""
        self.is_over = True
        self._has_changed.set()
        if self.transport is not None:
            self.transport.abort()
