"""A kept connection, and queens on other machines that answer over it, well or not."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from rbee.client.link import Link, QueenAddress
from rbee.errors import RbeeError
from rbee.queen.authority import Authority
from rbee.server.app import build_app
from rbee.server.responses import event_stream
from rbee.systemd.daemon import Notifier
from rbee.wire.daemon import Health
from rbee.wire.routes import INSTANCE_HEADER, QueenRoutes, Route
from tests.integration.remote_queen import HERE, Play, playing_over_tcp, queen_address, served_over_tcp

Result = TypeVar("Result")

NAME = "queen.example"


@contextlib.asynccontextmanager
async def linked(place: Path | QueenAddress, *, timeout: float = 5) -> AsyncIterator[Link]:
    link = Link(place, timeout=timeout)
    try:
        yield link
    finally:
        await link.close()


async def failure(place: QueenAddress, *, timeout: float = 5) -> RbeeError:
    async with linked(place, timeout=timeout) as link:
        with pytest.raises(RbeeError) as caught:
            await link.ask(QueenRoutes.HEALTH)
        return caught.value


async def failure_with(play: Play, context: ssl.SSLContext | None, authority: Authority) -> RbeeError:
    """The error that a request meets with a server that plays so."""

    async with playing_over_tcp(play, context) as port:
        return await failure(queen_address(authority, port))


async def well(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A server that answers each request as a queen who is well does."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(WELL)
            await writer.drain()


CONTENT = b'{"status": "ok", "version": "1"}'
WELL = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CONTENT) + CONTENT


@contextlib.contextmanager
def speaking(context: ssl.SSLContext) -> Iterator[int]:
    """A server of one connection, that is Python's blocking one; its port."""

    def serve() -> None:
        channel, _ = listener.accept()
        channel.settimeout(5)
        beside = channel.dup()
        spoken = context.wrap_socket(channel, server_side=True, do_handshake_on_connect=False)
        with beside, spoken, contextlib.suppress(OSError):
            try:
                spoken.do_handshake()
            except ssl.SSLError:
                # To its end, or closing would be a reset, which overtakes the alert.
                beside.settimeout(5)
                while beside.recv(4096):
                    pass
            spoken.recv(1)

    with socket.create_server((HERE, 0)) as listener:
        server_thread = threading.Thread(target=serve)
        server_thread.start()
        yield listener.getsockname()[1]
        server_thread.join()


class Held:
    """Answers the first requests only when they are released. `most` is how many were under way at once."""

    def __init__(self, count: int) -> None:
        self.entered = asyncio.Event()
        self.release = asyncio.Event()
        self.ports: list[int] = []
        self.under_way = self.most = 0
        self._count = count

    def app(self) -> ASGIApp:
        return build_app("a queen", "1", {QueenRoutes.HEALTH: self._health})

    async def _health(self, request: Request) -> Health:
        assert request.client is not None
        self.ports.append(request.client.port)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if len(self.ports) <= self._count:
                self.entered.set()
                await self.release.wait()
            return Health("ok", "1")
        finally:
            self.under_way -= 1


STREAM: Route[None] = Route("GET", "/v1/stream", "A stream", None)


class Chunks:
    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.more: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (chunk := await self.more.get()) is not None:
            yield chunk

    async def aclose(self) -> None:
        self.ended.set()


Told = Callable[[Link, Chunks], Coroutine[Any, Any, Result]]


async def streaming(authority: Authority, notifier: Notifier, work: Told[Result]) -> Result:
    chunks = Chunks()

    async def requests(request: Request) -> Response:
        assert request.headers[INSTANCE_HEADER] == "i"
        return event_stream(chunks)

    app = build_app("a queen", "1", {STREAM: requests})
    async with served_over_tcp(app, authority.context(), notifier) as port:
        async with linked(queen_address(authority, port)) as link:
            told = await work(link, chunks)
        await chunks.ended.wait()
        return told


def opened(link: Link, *, silence: float = 5) -> Any:
    return link.stream(STREAM, headers={INSTANCE_HEADER: "i"}, silence=silence)
