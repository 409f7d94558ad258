"""Each reader of something that grows gets all of it, hears that a silent stream lives, and leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import pytest

import rbee.server.streams
from rbee.server.streams import Growth, Reading
from rbee.wire.sse import COMMENT


class Story:
    """Chunks that come one by one, and an end."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = list(chunks)
        self.is_ended = False
        self.growth = Growth()

    def tell(self, chunk: bytes, *, is_last: bool = False) -> None:
        self.chunks.append(chunk)
        self.is_ended = is_last
        self.growth.announce()

    def read(self, first: bytes = b"", left: list[str] | None = None) -> Reading:
        number = 0

        def unread() -> Iterator[bytes]:
            nonlocal number
            for chunk in self.chunks[number:]:
                number += 1
                yield chunk

        release = (left if left is not None else []).append
        return Reading(
            self.growth, unread, lambda: self.is_ended, first=first, release=lambda: release("left")
        )


class Client:
    """A connection that chunks are pushed to: it takes `room` of them, and then it is stalled."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.pushed: list[bytes] = []

    def take(self, chunks: Iterable[bytes]) -> bool:
        for chunk in chunks if self.room else ():
            self.pushed.append(chunk)
            self.room -= 1
            if not self.room:
                return False
        return bool(self.room)


async def round_of_the_loop() -> None:
    for _ in range(2):
        await asyncio.sleep(0)


async def test_what_comes_while_a_chunk_is_sent_is_read_before_the_end() -> None:
    story, read = Story(b"1"), []

    async for chunk in story.read(b"0"):
        read.append(chunk)
        if chunk == b"1":
            story.tell(b"2")
            story.tell(b"3", is_last=True)

    assert read == [b"0", b"1", b"2", b"3"]


async def test_all_readers_are_woken() -> None:
    story = Story()
    waiting = [asyncio.ensure_future(anext(story.read())) for _ in range(3)]
    await asyncio.sleep(0)

    story.tell(b"1")

    assert await asyncio.gather(*waiting) == [b"1"] * 3


async def test_a_silent_stream_has_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rbee.server.streams, "KEEP_ALIVE", 0.01)
    reading = Story(b"1").read()

    assert [await anext(reading) for _ in range(3)] == [b"1", COMMENT, COMMENT]
    await reading.aclose()


@pytest.mark.parametrize("chunks", [0, 1, 2, 3])
async def test_a_place_is_given_back_once_however_far_its_reader_went(chunks: int) -> None:
    left: list[str] = []
    story = Story(b"1")
    story.tell(b"2", is_last=True)
    reading = story.read(left=left)

    for _ in range(chunks):
        await anext(reading, None)
    await reading.aclose()
    await reading.aclose()

    assert left == ["left"]


async def test_a_client_that_keeps_up_is_pushed_what_comes_and_its_reader_is_not_woken() -> None:
    story, client = Story(b"1"), Client(room=9)
    reading = story.read()
    reading.push = client.take
    assert await anext(reading) == b"1"
    waiting = asyncio.ensure_future(anext(reading, None))
    await round_of_the_loop()

    for chunk in (b"2", b"3"):
        story.tell(chunk)
        await round_of_the_loop()
        assert not waiting.done()
    assert client.pushed == [b"2", b"3"]
    story.tell(b"4", is_last=True)

    assert await waiting == b"4"  # and what comes with the end is read, not pushed


async def test_a_stalled_client_is_left_to_its_reader_which_misses_nothing() -> None:
    story, stalled, other = Story(), Client(room=1), Client(room=9)
    readings = [story.read(), story.read()]
    for reading, client in zip(readings, (stalled, other), strict=True):
        reading.push = client.take
    waiting = [asyncio.ensure_future(anext(reading)) for reading in readings]
    await round_of_the_loop()

    story.tell(b"1")
    story.tell(b"2")
    await round_of_the_loop()

    assert await waiting[0] == b"2"
    assert (stalled.pushed, other.pushed) == ([b"1"], [b"1", b"2"])
    assert not waiting[1].done()
    stalled.room = 9
    waiting[0] = asyncio.ensure_future(anext(readings[0]))
    await round_of_the_loop()
    story.tell(b"3")
    await round_of_the_loop()
    assert stalled.pushed == [b"1", b"3"]
    for one, reading in zip(waiting, readings, strict=True):
        one.cancel()
        await asyncio.gather(one, return_exceptions=True)
        await reading.aclose()


async def test_a_silent_stream_is_pushed_comments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rbee.server.streams, "KEEP_ALIVE", 0.01)
    reading, client = Story().read(), Client(room=2)
    reading.push = client.take

    assert await anext(reading) == COMMENT  # once there is no room
    assert client.pushed == [COMMENT, COMMENT]
    await reading.aclose()


async def test_without_readers_no_timer_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[float] = []
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "call_later", lambda delay, *_: started.append(delay))
    story = Story()

    story.tell(b"1")
    await round_of_the_loop()

    assert started == []
