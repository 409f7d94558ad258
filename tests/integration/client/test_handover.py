"""A connection that is handed over, against a played other side."""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rbee.client.handover import Handover, handover
from rbee.errors import Disconnected, NotRunning, RbeeError, TimedOut, TooMany, Unreachable
from rbee.wire.leases import (
    LEASE_PROTOCOL,
    LINE_MAX,
    Ask,
    Frame,
    Granted,
    Refused,
    Wait,
    decode_frame,
    encode_frame,
)

ID = "0" * 31 + "a"
ASK = Ask("bee", ID, 60_000)
GRANTED = Granted("bee-1", was_cold=False)
SWITCHED = (
    f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {LEASE_PROTOCOL}\r\n\r\n".encode()
)

Play = Callable[[socket.socket], Awaitable[None]]


@pytest.fixture(autouse=True)
def no_descriptor_is_left() -> Iterator[None]:
    before = len(os.listdir("/proc/self/fd"))
    yield
    assert len(os.listdir("/proc/self/fd")) == before


@asynccontextmanager
async def played(path: Path, play: Play) -> AsyncIterator[Path]:
    """The other side, which reads the request's head and plays on."""

    async def serve(listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        channel, _ = await loop.sock_accept(listener)
        with channel:
            channel.setblocking(False)
            head = b""
            while b"\r\n\r\n" not in head:
                head += await loop.sock_recv(channel, 4096)
            assert head.startswith(b"GET /v1/lease HTTP/1.1\r\n")
            assert f"\r\nUpgrade: {LEASE_PROTOCOL}\r\n".encode() in head
            await play(channel)
            while await loop.sock_recv(channel, 4096):
                pass

    with socket.socket(socket.AF_UNIX) as listener:
        listener.setblocking(False)
        listener.bind(os.fspath(path))
        listener.listen()
        server_task = asyncio.ensure_future(serve(listener))
        try:
            yield path
        finally:
            server_task.cancel()
            await asyncio.gather(server_task, return_exceptions=True)


@asynccontextmanager
async def connected(folder: Path, play: Play, timeout: float = 5.0) -> AsyncIterator[Handover]:
    """A connection to the played other side."""
    async with (
        played(folder / "s", play) as path,
        handover(path, "/v1/lease", LEASE_PROTOCOL, timeout=timeout) as connection,
    ):
        yield connection


async def nothing(_: object) -> None:
    pass


def sends(*parts: bytes) -> Play:
    async def play(channel: socket.socket) -> None:
        for part in parts:
            await asyncio.get_running_loop().sock_sendall(channel, part)

    return play


def with_descriptors(channel: socket.socket, line: bytes, *descriptors: int) -> None:
    rights = array.array("i", descriptors)
    channel.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])


async def test_frames_go_both_ways_and_a_descriptor_comes(tmp_path: Path) -> None:
    asked: list[object] = []

    async def play(channel: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(channel, SWITCHED + encode_frame(Wait("loading bee", 40.0))[:9])
        asked.append(decode_frame(await loop.sock_recv(channel, 4096)))
        ours, theirs = socket.socketpair()
        with ours, theirs:
            await loop.sock_sendall(channel, encode_frame(Wait("loading bee", 40.0))[9:])
            with_descriptors(channel, encode_frame(GRANTED), theirs.fileno())
            ours.sendall(b"the engine")

    async with connected(tmp_path, play) as connection:
        await connection.send(ASK)
        assert await connection.receive() == Wait("loading bee", 40.0)
        assert await connection.receive() == GRANTED
        with connection.take() as engine:
            assert await asyncio.get_running_loop().sock_recv(engine, 100) == b"the engine"
            assert not os.get_inheritable(engine.fileno())
    assert asked == [ASK]


async def test_a_descriptor_that_nobody_takes_is_closed(tmp_path: Path) -> None:
    async def play(channel: socket.socket) -> None:
        ours, theirs = socket.socketpair()
        with ours, theirs:
            with_descriptors(channel, SWITCHED + encode_frame(GRANTED), theirs.fileno())

    async with connected(tmp_path, play) as connection:
        assert await connection.receive() == GRANTED


@pytest.mark.parametrize("count", [2, 20])
async def test_more_than_one_descriptor_is_refused_and_all_are_closed(tmp_path: Path, count: int) -> None:
    async def play(channel: socket.socket) -> None:
        with socket.socket(socket.AF_UNIX) as any_socket:
            await asyncio.get_running_loop().sock_sendall(channel, SWITCHED)
            with_descriptors(channel, encode_frame(GRANTED), *[any_socket.fileno()] * count)

    with pytest.raises(Unreachable, match="more than one descriptor"):
        async with connected(tmp_path, play) as connection:
            await connection.receive()


async def test_a_descriptor_that_is_no_socket_is_refused(tmp_path: Path) -> None:
    async def play(channel: socket.socket) -> None:
        null = os.open("/dev/null", os.O_RDONLY)
        with_descriptors(channel, SWITCHED + encode_frame(GRANTED), null)
        os.close(null)

    async with connected(tmp_path, play) as connection:
        await connection.receive()
        with pytest.raises(Unreachable, match="not a socket"):
            connection.take()
        with pytest.raises(Unreachable, match="sent none"):
            connection.take()


async def test_the_end_is_a_broken_connection(tmp_path: Path) -> None:
    async def play(channel: socket.socket) -> None:
        await asyncio.get_running_loop().sock_sendall(channel, SWITCHED + encode_frame(Refused({})))
        channel.shutdown(socket.SHUT_WR)

    async with connected(tmp_path, play) as connection:
        assert await connection.receive() == Refused({})
        with pytest.raises(Disconnected):
            await connection.receive()


@pytest.mark.parametrize(
    ("line", "complaint"), [(b"{}\n", "not valid"), (b"x" * 2 * LINE_MAX, "without the end of a line")]
)
async def test_what_is_no_frame_is_refused(tmp_path: Path, line: bytes, complaint: str) -> None:
    async with connected(tmp_path, sends(SWITCHED + line)) as connection:
        with pytest.raises(Unreachable, match=complaint):
            await connection.receive()


async def test_a_receive_that_is_cancelled_loses_nothing(tmp_path: Path) -> None:
    line = encode_frame(Wait("loading bee"))
    may_go_on = asyncio.Event()

    async def play(channel: socket.socket) -> None:
        await asyncio.get_running_loop().sock_sendall(channel, SWITCHED + line[:5])
        await may_go_on.wait()
        await asyncio.get_running_loop().sock_sendall(channel, line[5:])

    async with connected(tmp_path, play) as connection:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connection.receive()
        may_go_on.set()
        assert await connection.receive() == Wait("loading bee")


def problem(error: RbeeError) -> bytes:
    import json

    content = json.dumps(error.to_problem()).encode()
    return b"HTTP/1.1 %d x\r\nContent-Length: %d\r\n\r\n%s" % (error.status, len(content), content)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(TooMany("1000 leases are held")), TooMany),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Unreachable),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Unreachable),
        (b"HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", Unreachable),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b"x" * 9_000_000, Unreachable),
    ],
    ids=["problem", "no upgrade", "no HTTP", "another protocol", "too large"],
)
async def test_another_answer_than_the_upgrade_is_raised(
    tmp_path: Path, answer: bytes, kind: type[RbeeError]
) -> None:
    with pytest.raises(kind):
        async with connected(tmp_path, sends(answer)):
            pass


async def test_an_answer_that_does_not_come_is_late(tmp_path: Path) -> None:
    with pytest.raises(TimedOut):
        async with connected(tmp_path, nothing, timeout=0.1):
            pass


async def test_a_connection_that_is_reset_is_broken(tmp_path: Path) -> None:
    async def play(channel: socket.socket) -> None:
        await asyncio.get_running_loop().sock_sendall(channel, SWITCHED)
        has_come = asyncio.Event()
        asyncio.get_running_loop().add_reader(channel, has_come.set)
        await has_come.wait()
        asyncio.get_running_loop().remove_reader(channel)
        channel.close()  # with data that nobody has read

    async with connected(tmp_path, play) as connection:
        await connection.send(ASK)
        with pytest.raises(Disconnected):
            await connection.receive()


async def test_nobody_listens(tmp_path: Path) -> None:
    with pytest.raises(NotRunning):
        async with handover(tmp_path / "none", "/v1/lease", LEASE_PROTOCOL):
            pass


async def test_the_next_connection_with_the_same_number_gets_its_own_wake_ups(tmp_path: Path) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    number = ours.fileno()
    former = Handover(ours, tmp_path / "former")
    waiting = asyncio.ensure_future(former.receive())
    await asyncio.sleep(0)

    async def latter() -> Frame:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        assert ours.fileno() == number
        connection = Handover(ours, tmp_path / "latter")
        asyncio.get_running_loop().call_later(0.1, theirs.send, encode_frame(Wait("loading bee")))
        try:
            async with asyncio.timeout(2):
                return await connection.receive()
        finally:
            connection.close()
            theirs.close()

    # A client has left, and the next request is in the loop's queue before the cancellation is noticed.
    receiving = asyncio.ensure_future(latter())
    waiting.cancel()
    former.close()
    theirs.close()
    assert await receiving == Wait("loading bee")
    await asyncio.gather(waiting, return_exceptions=True)
