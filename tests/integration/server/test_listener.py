"""Accepting over TCP, where anybody may knock."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import rbee.server.listener
from rbee import tls
from rbee.queen.authority import Authority
from rbee.server.listener import TlsListener
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(20)


class Guest(asyncio.Protocol):
    """Who is in: it says what is said to it, and is a stranger until it says 'known'."""

    def __init__(self, is_no_stranger: Callable[[], None]) -> None:
        self._is_no_stranger = is_no_stranger
        self._transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if data == b"known":
            self._is_no_stranger()
        self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_no_stranger()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.open(tmp_path / "tls")


@asynccontextmanager
async def opened(authority: Authority) -> AsyncIterator[tuple[TlsListener, int]]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        tls_listener = TlsListener(listener, authority.context(), Guest)
        running = asyncio.create_task(tls_listener.run())
        try:
            yield tls_listener, listener.getsockname()[1]
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await until(lambda: not tls_listener._unauthenticated)


@asynccontextmanager
async def spoken(
    authority: Authority, port: int, hello: bytes = b"hello"
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, ssl=tls.client_context(authority.ca, None, None), server_hostname=tls.QUEEN_NAME
    )
    try:
        writer.write(hello)
        assert await reader.readexactly(len(hello)) == hello
        yield reader, writer
    finally:
        writer.transport.abort()
        await asyncio.sleep(0)


async def silent(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def test_who_never_speaks_is_turned_away_in_time(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.server.listener, "HANDSHAKE_TIMEOUT", 0.05)

    async with opened(authority) as (tls_listener, port):
        reader, writer = await silent(port)
        assert await reader.read() == b""
        writer.close()
        await until(lambda: not tls_listener._unauthenticated and not tls_listener._by_address)
        async with spoken(authority, port):
            pass


async def test_for_one_stranger_more_than_there_may_be_the_oldest_goes(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.server.listener, "UNAUTHENTICATED_MAX", 3)

    async with opened(authority) as (tls_listener, port), spoken(authority, port) as (oldest, _):
        others = [await silent(port) for _ in range(3)]
        # The one that has finished its handshake, and shown nothing.
        assert await oldest.read() == b""
        assert len(tls_listener._unauthenticated) == 3
        async with spoken(authority, port):
            assert await others[0][0].read() == b""
        for _, writer in others:
            writer.transport.abort()
        await until(lambda: not tls_listener._unauthenticated)


async def test_of_many_connections_at_once_one_is_accepted_at_a_time(authority: Authority) -> None:
    many = 20
    async with opened(authority) as (listener, port):
        await asyncio.sleep(0)  # until it waits for the first
        connections = [socket.create_connection(("127.0.0.1", port)) for _ in range(many)]
        accepted = []
        while not accepted or accepted[-1] < many:
            await asyncio.sleep(0)
            accepted.append(len(listener._unauthenticated))
        for one in connections:
            one.close()
    more = [after - before for before, after in pairwise([0, *accepted])]
    assert max(more) == 1


async def test_an_address_has_its_share_and_no_more(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.server.listener, "UNAUTHENTICATED_AN_ADDRESS", 2)

    async with opened(authority) as (tls_listener, port):
        held = [await silent(port) for _ in range(2)]
        await until(lambda: len(tls_listener._unauthenticated) == 2)
        reader, writer = await silent(port)
        assert await reader.read() == b""
        writer.close()
        # Those of another address are not shut out by it.
        other = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
        await until(lambda: len(tls_listener._unauthenticated) == 3)
        for _, writer in (*held, other):
            writer.transport.abort()
        await until(lambda: not tls_listener._by_address)


async def test_who_has_shown_a_credential_is_no_stranger(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.server.listener, "UNAUTHENTICATED_MAX", 1)
    monkeypatch.setattr(rbee.server.listener, "UNAUTHENTICATED_AN_ADDRESS", 1)

    async with (
        opened(authority) as (tls_listener, port),
        spoken(authority, port, b"known") as (reader, writer),
    ):
        assert not tls_listener._unauthenticated
        _, stranger = await silent(port)
        await until(lambda: len(tls_listener._unauthenticated) == 1)
        _, another = await silent(port)
        writer.write(b"still there")
        assert await reader.readexactly(11) == b"still there"
        stranger.transport.abort()
        another.transport.abort()


class FailingAccept:
    """The loop's accept, which fails so many times first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, failures: int, error: OSError) -> None:
        self.failures = failures
        self._error = error
        loop = asyncio.get_running_loop()
        self._accept = loop.sock_accept
        monkeypatch.setattr(loop, "sock_accept", self)

    async def __call__(self, listener: socket.socket) -> Any:
        if self.failures:
            self.failures -= 1
            raise self._error
        return await self._accept(listener)


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_what_runs_out_comes_back_and_both_are_told_once(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    monkeypatch.setattr(rbee.server.listener, "RETRY_AFTER", 0.01)
    failing = FailingAccept(monkeypatch, 5, OSError(code, "there is none"))

    with caplog.at_level(logging.WARNING, "rbee"):
        async with opened(authority) as (_, port), spoken(authority, port):
            assert failing.failures == 0

    said = [record.getMessage().partition(",")[0] for record in caplog.records]
    assert said == ["no connection over TCP can be accepted", "connections over TCP are accepted again"]


@pytest.mark.parametrize("code", [errno.ECONNABORTED, errno.ECONNRESET, errno.EPROTO, errno.ETIMEDOUT])
async def test_what_became_of_one_connection_ends_no_other(
    authority: Authority, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    failing = FailingAccept(monkeypatch, 3, OSError(code, "it went"))

    async with opened(authority) as (_, port), spoken(authority, port):
        assert failing.failures == 0


async def test_garbage_and_resets_in_the_middle_of_a_handshake_leave_nothing_behind(
    authority: Authority,
) -> None:
    async with opened(authority) as (tls_listener, port):
        for said in (b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00" + bytes(600), b"\xff" * 70_000):
            reader, writer = await silent(port)
            writer.write(said)
            with suppress(ConnectionError):
                assert len(await reader.read()) < 50
            writer.transport.abort()
        for _ in range(20):
            _, writer = await silent(port)
            writer.transport.abort()
        await until(lambda: not tls_listener._unauthenticated and not tls_listener._by_address)
        async with spoken(authority, port):
            pass


async def test_the_door_s_connections_have_what_a_cut_line_needs(authority: Authority) -> None:
    async with opened(authority) as (tls_listener, port), spoken(authority, port):
        (pending,) = tls_listener._unauthenticated
        assert pending.transport is not None
        channel = pending.transport.get_extra_info("socket")
        level, option = socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT
        assert channel.getsockopt(level, option) == rbee.server.listener.USER_TIMEOUT
        assert channel.getsockopt(level, socket.TCP_NODELAY) == 1
        assert isinstance(pending.transport.get_extra_info("ssl_object"), ssl.SSLSocket)
