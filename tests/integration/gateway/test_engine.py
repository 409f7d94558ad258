"""The connection to an engine."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest

from rbee.errors import Disconnected, TimedOut, Unreachable
from rbee.gateway import engine as module
from rbee.gateway.engine import Engine, open_engine

pytestmark = pytest.mark.deadline(10)


class Connection(NamedTuple):
    """The gateway's end of a connection, and the engine's."""

    engine: Engine
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


@pytest.fixture
@asynccontextmanager
async def connection() -> AsyncIterator[Connection]:
    ours, theirs = socket.socketpair()
    engine = await open_engine(ours)
    reader, writer = await asyncio.open_unix_connection(sock=theirs)
    try:
        yield Connection(engine, reader, writer)
    finally:
        engine.close()
        writer.close()


async def content_of(engine: Engine) -> bytes:
    content = b""
    while (part := await engine.part()) is not None:
        content += part
    return content


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\nX: 1\r\n\r\n",
            b"abc",
        ),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
        (b"HTTP/1.0 200 OK\r\n\r\nabc", b"abc"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
async def test_an_answer_is_read_however_it_is_framed(
    connection: Connection, answer: bytes, content: bytes, at_once: bool
) -> None:
    engine, _, writer = connection

    async def answering() -> None:
        for size in range(0, len(answer), len(answer) if at_once else 1):
            writer.write(answer[size : size + (len(answer) if at_once else 1)])
            await asyncio.sleep(0)
        writer.close()

    sending = asyncio.ensure_future(answering())
    head = await engine.head()
    assert head.status in (200, 204)
    assert (b"X", b"1") not in head.headers
    assert await content_of(engine) == content
    await sending


async def test_an_answer_that_is_cut_is_an_error_after_its_parts(connection: Connection) -> None:
    engine, _, writer = connection
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc")
    writer.close()
    await engine.head()
    assert await engine.part() == b"abc"
    with pytest.raises(Disconnected, match="in the middle"):
        await engine.part()


async def test_an_engine_that_refuses_a_body_before_it_has_read_it_is_heard(connection: Connection) -> None:
    engine, _, writer = connection
    writer.write(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno")
    await engine.send(b"POST / HTTP/1.1\r\n\r\n", b"x" * 2**24)
    assert (await engine.head()).status == 413
    assert await content_of(engine) == b"no"


async def test_an_engine_that_takes_nothing_and_goes_is_an_error(connection: Connection) -> None:
    engine, _, writer = connection
    sending = asyncio.ensure_future(engine.send(b"POST / HTTP/1.1\r\n\r\n", b"x" * 2**24))
    await asyncio.sleep(0.05)
    assert not sending.done()
    writer.transport.abort()
    await sending
    with pytest.raises(Disconnected, match="before it had answered"):
        await engine.head()


async def test_what_ends_it_is_raised_at_once(connection: Connection) -> None:
    engine, reader, writer = connection
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc")
    await engine.head()
    engine.end(Unreachable("it was cut"))
    with pytest.raises(Unreachable, match="it was cut"):
        await engine.part()
    assert await reader.read() == b""


@pytest.fixture
def short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SILENCE", 0.1)


@pytest.mark.usefixtures("short_silence")
async def test_silence_has_an_end(connection: Connection) -> None:
    with pytest.raises(TimedOut):
        await connection.engine.head()
