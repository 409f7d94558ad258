"""The queen's end of a dialled connection, as httpcore reads and writes it."""

from __future__ import annotations

import asyncio

import pytest

from rbee.uplink.carried import BUFFER, Carried
from tests.unit.played_hive import Pipe

pytestmark = pytest.mark.deadline(5)


class Socket(Pipe):
    """A transport whose other end takes data, or does not."""

    def __init__(self, carried: Carried) -> None:
        self.sent = bytearray()
        self.is_paused = False
        super().__init__(carried, self.sent.extend)

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


async def dialled() -> tuple[Carried, Socket]:
    coming: asyncio.Future[Carried] = asyncio.get_running_loop().create_future()
    carried = Carried(coming)
    transport = Socket(carried)
    carried.connection_made(transport)
    assert await coming is carried
    return carried, transport


async def test_it_comes_to_who_waits_for_it() -> None:
    carried, transport = await dialled()

    assert not transport.is_closing()
    assert not carried.is_over


async def test_one_that_nobody_waits_for_any_more_is_closed() -> None:
    coming: asyncio.Future[Carried] = asyncio.get_running_loop().create_future()
    coming.cancel()
    carried = Carried(coming)
    transport = Socket(carried)
    carried.connection_made(transport)

    assert transport.is_aborted
    assert carried.is_over


async def test_what_has_come_is_read_as_soon_as_it_is_there_and_in_parts() -> None:
    carried, _ = await dialled()
    reading = asyncio.ensure_future(carried.read(4))
    await asyncio.sleep(0)
    carried.data_received(b"abcdef")

    assert await reading == b"abcd"
    assert await carried.read(4) == b"ef"


async def test_after_the_end_the_rest_is_read_and_then_nothing() -> None:
    carried, _ = await dialled()
    carried.data_received(b"the rest")
    carried.connection_lost(None)

    assert [await carried.read(100), await carried.read(100)] == [b"the rest", b""]


async def test_an_end_is_heard_by_who_waits_for_data() -> None:
    carried, _ = await dialled()
    reading = asyncio.ensure_future(carried.read(4))
    await asyncio.sleep(0)
    carried.connection_lost(ConnectionResetError())

    assert await reading == b""


async def test_what_nobody_reads_is_left_in_the_socket() -> None:
    carried, transport = await dialled()
    carried.data_received(b"x" * BUFFER)
    assert not transport.is_paused
    carried.data_received(b"x")
    assert transport.is_paused
    await carried.read(BUFFER)
    assert not transport.is_paused


async def test_a_write_waits_until_the_socket_has_taken_it() -> None:
    carried, transport = await dialled()
    carried.pause_writing()
    writing = asyncio.ensure_future(carried.write(b"GET"))
    await asyncio.sleep(0)
    assert transport.sent == b"GET"
    assert not writing.done()
    carried.resume_writing()
    await writing


async def test_nothing_is_written_to_what_is_closed() -> None:
    carried, transport = await dialled()
    await carried.aclose()

    assert transport.is_aborted
    with pytest.raises(ConnectionResetError):
        await carried.write(b"GET")


async def test_an_idle_one_that_has_anything_to_say_cannot_be_used_again() -> None:
    carried, _ = await dialled()
    assert carried.get_extra_info("is_readable") is False
    assert carried.get_extra_info("ssl_object") is None
    carried.data_received(b"HTTP/1.1 408")
    assert carried.get_extra_info("is_readable") is True
    carried.close()
    await carried.read(100)
    assert carried.get_extra_info("is_readable") is True
