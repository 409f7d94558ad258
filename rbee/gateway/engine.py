"""The connection to an engine, over which one request is sent and its answer read, as HTTP/1.1."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from typing import NamedTuple

import httptools

from rbee.errors import Disconnected, TimedOut, Unreachable

HIGH_WATER = 128 * 1024
"""Bytes of an answer that wait for a slow client; above that the engine is not read, and waits too."""

HEAD_LIMIT = 64 * 1024
"""Bytes of the head of an answer."""

SLICE = 256 * 1024
"""Bytes of a request's body that are handed to the kernel at once."""

SILENCE = 600.0
"""Seconds in which an engine must send something: as long as OpenAI's own client waits."""


class EngineHead(NamedTuple):
    """The head of an answer."""

    status: int
    headers: list[tuple[bytes, bytes]]

    @property
    def is_events(self) -> bool:
        """Is its content a stream of server-sent events?"""
        return any(
            name.lower() == b"content-type" and value.lower().startswith(b"text/event-stream")
            for name, value in self.headers
        )


async def open_engine(channel: socket.socket) -> Engine:
    """Return the Engine of a connected socket, which it closes."""
    try:
        _, engine = await asyncio.get_running_loop().create_connection(Engine, sock=channel)
    except BaseException:
        channel.close()
        raise
    return engine


class Engine(asyncio.Protocol):
    """An engine's answer as it comes. What fails is raised by head() and part()."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._headers: list[tuple[bytes, bytes]] = []
        self._head: EngineHead | None = None
        self._head_size = 0
        self._parts: deque[bytes] = deque()
        self._size = 0
        self._is_paused = False
        self._is_complete = False
        self._error: Exception | None = None
        self._changed: asyncio.Future[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._heard_at = self._loop.time()
        self._silence: asyncio.TimerHandle | None = None

    # The request

    async def send(self, head: bytes, body: bytes) -> None:
        """Send a request, or as much of it as the engine takes before it answers."""
        for begin in range(0, len(body) or 1, SLICE):
            if self._head is not None or self._error is not None or self._transport is None:
                return
            part = body[begin : begin + SLICE]
            self._transport.write(part if begin else head + part)
            if self._writable is not None:
                await self._writable

    def pause_writing(self) -> None:
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        writable, self._writable = self._writable, None
        if writable is not None and not writable.done():
            writable.set_result(None)

    # The answer

    async def head(self) -> EngineHead:
        """Return the head of the answer. Raises Unreachable, TimedOut, or the error of end()."""
        while self._head is None:
            await self._change()
        return self._head

    async def part(self) -> bytes | None:
        """Return all that has come of the answer's content, as soon as something has; None at its end."""
        while not self._parts:
            if self._is_complete:
                return None
            await self._change()
        part = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._size = 0
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        return part

    async def _change(self) -> None:
        if self._error is not None:
            raise self._error
        self._changed = self._loop.create_future()
        await self._changed

    def _wake(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)
        self.resume_writing()

    def end(self, error: Exception) -> None:
        """Close the connection at once; whoever waits for the answer gets the error."""
        if self._error is None:
            self._error = error
        self._is_complete = False
        self._parts.clear()
        self._wake()
        self.close()

    def close(self) -> None:
        """Close the connection at once."""
        if self._silence is not None:
            self._silence.cancel()
        if self._transport is not None:
            self._transport.abort()

    # What comes

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._silence = self._loop.call_later(SILENCE, self._check_silence)

    def data_received(self, data: bytes) -> None:
        self._heard_at = self._loop.time()
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self.end(Unreachable(f"the engine does not speak HTTP/1.1 ({error})"))
            return
        if self._head is None:
            self._head_size += len(data)
            if self._head_size > HEAD_LIMIT:
                self.end(Unreachable(f"the head of the engine's answer is larger than {HEAD_LIMIT} bytes"))
            return
        if self._size > HIGH_WATER and not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._silence is not None:
            self._silence.cancel()
        self._transport = None
        if not self._is_complete and self._error is None:
            if exc is None and self._head is not None and self._ends_with_connection():
                self._is_complete = True
            else:
                what = "in the middle of its answer" if self._head else "before it had answered"
                self._error = Disconnected(f"the engine closed the connection {what}")
        self._wake()

    def _ends_with_connection(self) -> bool:
        names = {name.lower() for name, _ in self._headers}
        return not names & {b"content-length", b"transfer-encoding"}

    def _check_silence(self) -> None:
        left = self._heard_at + SILENCE - self._loop.time()
        if left > 0:
            self._silence = self._loop.call_later(left, self._check_silence)
        else:
            hint = "Try again, or ask for a shorter answer."
            self.end(TimedOut(f"the engine was silent for {SILENCE:g} s", hint=hint))

    # Called by the parser

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._head is None:  # not a trailer
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status > 599:  # uvicorn has no line for it
            self.end(Unreachable(f"the engine does not speak HTTP/1.1: {status} is not a status"))
        elif status >= 200:
            self._head = EngineHead(status, self._headers)

    def on_body(self, part: bytes) -> None:
        self._parts.append(part)
        self._size += len(part)

    def on_message_complete(self) -> None:
        if self._head is None:
            self._headers = []  # 100 Continue
        else:
            self._is_complete = True
