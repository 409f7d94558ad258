"""TLS on a socket that the loop watches: what goes and what comes, as much of it as there is, and the end."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import rbee.server.transport
from rbee import tls
from rbee.queen.authority import Authority
from rbee.server.transport import TlsTransport, Together, handshake
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(20)


LARGE = bytes(range(256)) * 16_384
"""4 MiB, which no socket takes at once."""


class End(asyncio.Protocol):
    """What happened to one end of a connection."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.said: list[str] = []
        self.lost: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self.fails = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, TlsTransport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.fails:
            raise ZeroDivisionError("a bug")
        self.received += data

    def eof_received(self) -> None:
        self.said.append("eof")

    def pause_writing(self) -> None:
        self.said.append("pause")

    def resume_writing(self) -> None:
        self.said.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(exc)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.open(tmp_path_factory.mktemp("queen") / "tls")


@asynccontextmanager
async def connected(authority: Authority) -> AsyncIterator[tuple[End, End]]:
    """The queen's end and the hive's, on two sockets."""
    ours, theirs = socket.socketpair()
    channels = []
    for one, context, more in (
        (ours, authority.context(), {"server_side": True}),
        (theirs, tls.client_context(authority.ca, None, None), {"server_hostname": tls.QUEEN_NAME}),
    ):
        one.setblocking(False)
        channels.append(context.wrap_socket(one, do_handshake_on_connect=False, **more))
    await asyncio.gather(*(handshake(channel) for channel in channels))
    queen, hive = End(), End()
    ended: list[TlsTransport] = []
    transports = [
        TlsTransport(channels[0], queen, ended.append),
        TlsTransport(channels[1], hive, ended.append),
    ]
    try:
        yield queen, hive
    finally:
        for transport in transports:
            transport.abort()
        await asyncio.gather(queen.lost, hive.lost, return_exceptions=True)
        await until(lambda: set(ended) == set(transports))
        assert all(channel.fileno() == -1 for channel in channels)


async def test_what_is_written_arrives_whole_however_large_and_whoever_writes(authority: Authority) -> None:
    async with connected(authority) as (queen, hive):
        for one, other in ((queen, hive), (hive, queen)):
            one.transport.write(b"a little ")
            one.transport.write(LARGE)
            one.transport.write(b"")
            one.transport.write(b" and more")
            await until(lambda other=other: len(other.received) == len(LARGE) + 18)
            assert bytes(other.received) == b"a little " + LARGE + b" and more"
            assert one.said == ["pause", "resume"]
            assert one.transport.get_write_buffer_size() == 0


async def test_a_limit_of_nothing_tells_of_all_that_waits(authority: Authority) -> None:
    async with connected(authority) as (queen, hive):
        queen.transport.set_write_buffer_limits(high=0)
        assert queen.transport.get_write_buffer_limits() == (0, 0)
        hive.transport.pause_reading()
        assert not hive.transport.is_reading()
        while not queen.said:
            queen.transport.write(b"x" * 10_000)
        await asyncio.sleep(0.02)
        assert (queen.said, hive.received) == (["pause"], b"")
        hive.transport.resume_reading()
        await until(lambda: queen.said == ["pause", "resume"])


async def test_what_waits_is_sent_before_the_end_and_nothing_after(authority: Authority) -> None:
    async with connected(authority) as (queen, hive):
        queen.transport.write(LARGE)
        queen.transport.close()
        queen.transport.close()
        assert queen.transport.is_closing()
        queen.transport.write(b"too late")
        assert await hive.lost is None
        assert (bytes(hive.received), hive.said) == (LARGE, ["eof"])
        assert await queen.lost is None


async def test_who_goes_on_sending_reads_what_was_said_before_the_end(authority: Authority) -> None:
    async with connected(authority) as (queen, hive):
        hive.transport.write(b"x" * 100_000)
        queen.transport.write(b"no")
        queen.transport.close()
        hive.transport.write(b"x" * 100_000)
        await hive.lost
        assert bytes(hive.received) == b"no"
        await queen.lost


async def test_an_end_that_the_other_side_does_not_see_is_one_after_a_moment(authority: Authority) -> None:
    async with connected(authority) as (queen, hive):
        hive.transport.pause_reading()
        queen.transport.close()
        assert await asyncio.wait_for(queen.lost, 2) is None
        assert not hive.lost.done()


async def test_an_abort_is_told_at_once_and_drops_what_waits(authority: Authority) -> None:
    async with connected(authority) as (queen, hive):
        hive.transport.pause_reading()
        queen.transport.write(LARGE)
        queen.transport.abort()
        assert not queen.lost.done()
        assert await queen.lost is None
        hive.transport.resume_reading()
        await hive.lost
        assert len(hive.received) < len(LARGE)


async def test_who_writes_to_one_who_has_gone_is_told_of_the_end_and_not_interrupted(
    authority: Authority,
) -> None:
    async with connected(authority) as (queen, hive):
        queen.transport.pause_reading()
        hive.transport.abort()
        await hive.lost
        queen.transport.write(LARGE)
        assert isinstance(await queen.lost, OSError)


async def test_a_protocol_that_fails_ends_its_connection_alone_and_is_told(authority: Authority) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))
    async with connected(authority) as (queen, hive):
        queen.fails = True
        hive.transport.write(b"x")
        assert isinstance(await queen.lost, ZeroDivisionError)
        await hive.lost
    (told,) = told
    assert isinstance(told["exception"], ZeroDivisionError)


async def test_what_is_no_tls_ends_a_connection(authority: Authority) -> None:
    async with connected(authority) as (queen, hive):
        channel = hive.transport.get_extra_info("socket")
        socket.socket.send(channel, b"GET / HTTP/1.1\r\n\r\n" * 10)
        assert isinstance(await queen.lost, ssl.SSLError)


async def test_it_goes_on_with_another_protocol(authority: Authority) -> None:
    async with connected(authority) as (queen, hive):
        other = End()
        queen.transport.set_protocol(other)
        assert queen.transport.get_protocol() is other
        hive.transport.write(b"for the other")
        await until(lambda: bytes(other.received) == b"for the other")
        hive.transport.abort()
        await other.lost
        queen.lost.set_result(None)


async def test_a_handshake_that_is_refused_says_why_to_both(authority: Authority, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    other = Authority.open(tmp_path / "other")
    for one in (ours, theirs):
        one.setblocking(False)
    queen = authority.context().wrap_socket(ours, server_side=True, do_handshake_on_connect=False)
    hive = tls.client_context(other.ca, None, None).wrap_socket(
        theirs, server_hostname=tls.QUEEN_NAME, do_handshake_on_connect=False
    )
    try:
        at_the_queen, at_the_hive = await asyncio.gather(
            handshake(queen), handshake(hive), return_exceptions=True
        )
    finally:
        queen.close()
        hive.close()
    assert isinstance(at_the_hive, ssl.SSLCertVerificationError)
    assert isinstance(at_the_queen, ssl.SSLError)


# Read together


async def test_what_comes_first_is_read_at_once_and_what_comes_meanwhile_together(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.server.transport, "TOGETHER", 0.2)
    monkeypatch.setattr(rbee.server.transport, "TOGETHER_EACH", 0.1)

    together = Together()
    async with connected(authority) as (queen, hive), connected(authority) as (other_queen, other_hive):
        for end in (queen, other_queen):
            end.transport.read_with(together)
            assert end.transport.is_reading()
        hive.transport.write(b"one")
        await until(lambda: bytes(queen.received) == b"one")
        hive.transport.write(b", two")
        other_hive.transport.write(b"three")
        await asyncio.sleep(0.05)
        assert (bytes(queen.received), other_queen.received) == (b"one", b"")
        await until(lambda: bytes(other_queen.received) == b"three")
        assert bytes(queen.received) == b"one, two"
        # An end is something that comes, too.
        hive.transport.abort()
        await queen.lost
        other_queen.transport.pause_reading()
        other_hive.transport.write(b", four")
        await asyncio.sleep(0.05)
        other_queen.transport.resume_reading()
        await until(lambda: bytes(other_queen.received) == b"three, four")
    together.close()


async def test_while_data_comes_the_event_loop_is_not_asked_to_watch_anew(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = asyncio.get_running_loop()
    watched: list[object] = []
    add_reader = loop.add_reader

    def add(fd: object, *arguments: Any) -> None:
        watched.append(fd)
        add_reader(fd, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(rbee.server.transport, "TOGETHER", 1.0)
    monkeypatch.setattr(rbee.server.transport, "TOGETHER_EACH", 1.0)
    async with connected(authority) as (queen, hive):
        monkeypatch.setattr(loop, "add_reader", add)
        together = Together()
        queen.transport.read_with(together)
        for number in range(1, 4):  # each within the pause after the one before
            hive.transport.write(b"x")
            await until(lambda length=number: len(queen.received) == length)  # type: ignore[misc]
        assert len(watched) == 1
        await until(lambda: len(watched) == 2)  # after a pause without data
    together.close()


async def test_one_that_ends_another_while_they_are_read_together_harms_no_third(
    authority: Authority,
) -> None:
    together = Together()
    async with (
        connected(authority) as (first, one),
        connected(authority) as (second, two),
        connected(authority) as (third, three),
    ):
        for queen, other in ((first, second), (second, first)):
            abort = other.transport.abort
            queen.data_received = lambda data, end=abort: end()  # type: ignore[method-assign]
        for queen in (first, second, third):
            queen.transport.read_with(together)
        for hive in (one, two, three):
            hive.transport.write(b"x")
        await until(lambda: bytes(third.received) == b"x")
        assert [first.lost.done(), second.lost.done()].count(True) == 1
    together.close()
