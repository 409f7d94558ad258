"""An app served on connections that this program has dialled; the other end is a socket pair's."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.requests import Request

from rbee.server.app import build_app
from rbee.server.dialled import DialledServer
from rbee.server.peer import RemotePeer
from rbee.server.requests import remote_peer_of
from rbee.wire.daemon import Health
from rbee.wire.routes import QueenRoutes

pytestmark = pytest.mark.deadline(10)

QUEEN = RemotePeer("10.0.0.1", "c" * 32)
ASKED = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Served:
    """A server, whose handler answers once it may."""

    def __init__(self) -> None:
        self.peers: list[RemotePeer] = []
        self.entered, self.may_answer = asyncio.Event(), asyncio.Event()
        self.may_answer.set()
        self.ended = asyncio.Event()
        self.server = DialledServer(build_app("a hive", "1", {QueenRoutes.HEALTH: self._health}))

    async def _health(self, request: Request) -> Health:
        self.peers.append(remote_peer_of(request))
        self.entered.set()
        await self.may_answer.wait()
        return Health("ok", "1")

    @asynccontextmanager
    async def dialled(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        ours, theirs = socket.socketpair()
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: self.server.protocol(QUEEN, self.ended.set), ours
        )
        reader, writer = await asyncio.open_connection(sock=theirs)
        try:
            yield reader, writer
        finally:
            writer.close()
            await writer.wait_closed()
            await self.ended.wait()


async def answer_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    return head.split(b"\r\n")[0] + b" " + await reader.readexactly(len(b'{"status":"ok","version":"1"}'))


async def test_requests_are_answered_one_after_the_other_as_those_of_the_peer_that_was_dialled() -> None:
    served = Served()
    async with served.dialled() as (reader, writer):
        for _ in range(2):
            writer.write(ASKED)
            assert (await answer_of(reader)).startswith(b"HTTP/1.1 200 OK")
        assert not served.ended.is_set()
    await served.server.end()

    assert served.peers == [QUEEN, QUEEN]


async def test_settling_waits_for_the_answer_under_way_and_closes_the_connection() -> None:
    served = Served()
    served.may_answer.clear()
    async with served.dialled() as (reader, writer):
        writer.write(ASKED)
        await served.entered.wait()
        asyncio.get_running_loop().call_later(0.01, served.may_answer.set)
        await served.server.settle(5)
        assert (await answer_of(reader)).startswith(b"HTTP/1.1 200 OK")
        assert await reader.read() == b""
    await served.server.end()


async def test_settling_does_not_wait_for_ever_and_the_end_cancels_what_is_left() -> None:
    served = Served()
    served.may_answer.clear()
    async with served.dialled() as (reader, writer):
        writer.write(ASKED)
        await served.entered.wait()
        await served.server.settle(0.01)
        await served.server.end()
        assert await reader.read() == b""
        await served.ended.wait()


async def test_without_a_request_there_is_nothing_to_settle() -> None:
    served = Served()
    async with served.dialled() as (reader, _writer):
        await served.server.settle(5)
        assert await reader.read() == b""
