"""Each reader of something that grows gets all of it, hears that a silent stream lives, and leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

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

        follow = self.growth.follow(unread, lambda: self.is_ended)
        return Reading(follow, first, lambda: (left if left is not None else []).append("left"))


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
