"""The feed as a stream: whole, resumed over the queen's end, read slowly, by too many, and to her stop."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

import rbee.queen.backlog
import rbee.server.connection
from rbee.errors import PROBLEM_PREFIX
from rbee.narration import ADDING
from rbee.server.limits import Bound
from rbee.wire.codec import decode
from rbee.wire.events import FeedEvent, FeedEvents, Gap
from rbee.wire.routes import QueenRoutes
from tests.integration.house import House, Queen, soon, until
from tests.integration.test_add_hive import STORY


@dataclass(frozen=True)
class Block:
    id: str
    kind: str
    data: Any

    @property
    def number(self) -> int:
        return int(self.id.split("-")[1])

    @property
    def said(self) -> str:
        event = decode(FeedEvent, self.data)
        assert event.id == self.id
        return f"({event.speaker}) {event.text}"


class Watcher:
    """A client that reads blocks of the feed one by one."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self.reader = reader

    async def block(self) -> Block | None:
        """The next block that is no comment; None at the stream's end (chunked coding, a block a chunk)."""
        while size := int(await soon(self.reader.readline()), 16):
            chunk = (await soon(self.reader.readexactly(size + 2))).decode()
            fields = dict(line.split(": ", 1) for line in chunk.splitlines() if line)
            if "id" in fields:
                data = json.loads(fields["data"]) if "data" in fields else None
                return Block(fields["id"], fields.get("event", ""), data)
        return None

    async def to(self, event: str) -> list[Block]:
        """The blocks up to the first of this event."""
        blocks: list[Block] = []
        while not blocks or (blocks[-1].data or {}).get("event") != event:
            block = await self.block()
            assert block is not None, f"the feed ended before {event}, after {blocks}"
            blocks.append(block)
        return blocks

    async def rest(self) -> list[Block]:
        blocks = []
        while (block := await self.block()) is not None:
            blocks.append(block)
        return blocks


@contextlib.asynccontextmanager
async def watching(house: House, query: str = "", after: str | None = None) -> AsyncIterator[Watcher]:
    reader, writer = await asyncio.open_unix_connection(str(house.queen_path))
    resume = f"Last-Event-ID: {after}\r\n" if after is not None else ""
    try:
        writer.write(f"GET /v1/events{query} HTTP/1.1\r\nHost: localhost\r\n{resume}\r\n".encode())
        head = await soon(reader.readuntil(b"\r\n\r\n"))
        assert head.startswith(b"HTTP/1.1 200 "), head
        assert b"text/event-stream" in head
        yield Watcher(reader)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


def follow_each_other(blocks: list[Block]) -> bool:
    """One epoch, and each the number after that of the one before."""
    first = blocks[0]
    epoch = first.id.split("-")[0]
    return [block.id for block in blocks] == [f"{epoch}-{first.number + n}" for n in range(len(blocks))]


async def test_the_feed_tells_queen_and_hive_in_their_order_and_each_line_once(house: House) -> None:
    await house.wake_queen()
    async with watching(house) as watcher:
        story = house.add()
        position, *blocks = await watcher.to("has-devices")
        job_id = (await story.begins()).job_id
        assert (await story.end()).kind == "done"

    assert follow_each_other([position, *blocks])
    assert [block.said for block in blocks if block.data["event"] != "catalog-changed"] == STORY
    assert [block.data["event"] for block in blocks].count("catalog-changed") == 2
    assert {block.data["hive"] for block in blocks} == {"localhost"}
    assert {block.data["job_id"] for block in blocks} == {job_id}


async def test_who_comes_back_to_the_next_queen_has_neither_a_gap_nor_a_double(house: House) -> None:
    queen = await house.added()
    async with watching(house, "?since_ms=0") as watcher:
        before = await watcher.to("has-devices")
        await house.systemd.queen_dies(queen)
    second = await house.wake_queen()
    async with watching(house, after=before[-1].id) as watcher:
        between = await watcher.to("hive-online")
        await house.systemd.queen_is_stopped(second)
        between += await watcher.rest()
    # All up to the stop; a write of the catalog that was under way then may be told after it.
    assert "queen-stopping" in [block.data["event"] for block in between[-3:]]
    await house.wake_queen()
    async with watching(house, after=between[-1].id) as watcher:
        after = await watcher.to("hive-online")

    # Each stream begins with the place from which it goes on.
    assert [blocks[0].kind for blocks in (before, between, after)] == ["", "", ""]
    assert follow_each_other([*before, *between[1:], *after[1:]])


async def test_a_feed_that_is_lost_is_a_gap_and_then_all_there_is(house: House) -> None:
    queen = await house.added()
    stands_at = queen.feed.id
    await house.systemd.queen_dies(queen)
    house.feed_path.unlink()
    await house.wake_queen()

    async with watching(house, "?since_ms=99999999999999", after=stands_at) as watcher:
        gap, *events = await watcher.to("hive-online")

    assert gap.kind == "gap"
    assert decode(Gap, gap.data) == Gap(stands_at, events[0].id)
    assert events[0].data["event"] == "queen-started"
    assert follow_each_other([gap, *events])


async def test_a_reader_who_stops_reading_is_told_what_he_missed_and_holds_nothing_up(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.queen.backlog, "KEPT", 50)
    queen = await house.wake_queen()
    async with watching(house) as slow, watching(house) as quick:
        slow.reader._transport.pause_reading()  # type: ignore[attr-defined]
        numbers = []
        for burst in range(20):
            for number in range(25):
                queen.feed.narrate(ADDING, f"{burst}.{number} ".ljust(1900, "z"))
            numbers += [(await quick.block() or pytest.fail("it ended")).number for _ in range(25)]
        slow.reader._transport.resume_reading()  # type: ignore[attr-defined]
        blocks = [(await slow.block())]
        while blocks[-1] is not None and blocks[-1].id != queen.feed.id:
            blocks.append(await slow.block())

    assert numbers == list(range(numbers[0], numbers[0] + 500))
    gaps = [place for place, block in enumerate(blocks) if block is not None and block.kind == "gap"]
    assert gaps
    parts = [blocks[a:b] for a, b in zip([0, *gaps], [*gaps, len(blocks)], strict=True)]
    assert all(follow_each_other(part) for part in parts)  # type: ignore[arg-type]


async def test_a_reader_who_takes_nothing_is_dropped_and_his_place_given_back(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.server.connection, "SEND_TIMEOUT", 0.2)
    queen = await house.wake_queen()
    async with watching(house) as slow:
        slow.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await until(lambda: queen.feed.limits.taken == 1)
        for number in range(500):
            queen.feed.narrate(ADDING, f"{number} ".ljust(1900, "z"))
        await until(lambda: queen.feed.limits.taken == 0)


async def test_a_stop_is_told_to_all_who_read_and_waits_for_nobody_who_does_not(house: House) -> None:
    queen = await house.wake_queen()
    async with contextlib.AsyncExitStack() as readers:
        watchers = [await readers.enter_async_context(watching(house)) for _ in range(4)]
        slow = await readers.enter_async_context(watching(house))
        slow.reader._transport.pause_reading()  # type: ignore[attr-defined]
        for number in range(150):  # more than a socket's buffer takes
            queen.feed.narrate(ADDING, f"{number} ".ljust(1900, "z"))
        ends = [asyncio.create_task(watcher.rest()) for watcher in watchers]
        began = time.monotonic()
        await queen.stop()
        took = time.monotonic() - began
        heard = await asyncio.gather(*ends)

    assert took < 4  # of the 5 s that systemd gives her
    for blocks in heard:
        assert follow_each_other(blocks)
        assert blocks[-1].data["event"] == "queen-stopping"
        assert blocks[-1].id == queen.feed.id


async def test_more_watchers_than_there_may_be_are_refused(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.queen.feed.WATCHERS", Bound(total=2, kept=0, a_user=2, a_process=2))
    queen = await house.wake_queen()
    async with watching(house):
        async with watching(house):
            answer = await house.send("GET", "/v1/events")
            assert (answer.status, answer.json["type"]) == (503, PROBLEM_PREFIX + "too-many")
        await until(lambda: queen.feed.limits.taken == 1)
        async with watching(house):
            pass


async def test_the_last_events_are_told_without_a_stream(house: House) -> None:
    queen = await house.added()

    last: FeedEvents = await house.ask(QueenRoutes.LAST_EVENTS)
    assert len(last.events) == 10
    assert (last.events[-1].event, last.id) == ("has-devices", queen.feed.id)
    assert last.events[-1].id == last.id
    few: FeedEvents = await house.ask(QueenRoutes.LAST_EVENTS, limit="3", hive="localhost")
    assert few.events == last.events[-3:]
    none: FeedEvents = await house.ask(QueenRoutes.LAST_EVENTS, hive="elsewhere")
    assert none == FeedEvents(last.id, ())


async def test_the_feed_has_no_head(house: House) -> None:
    await house.wake_queen()

    answer = await house.send("HEAD", "/v1/events")

    assert (answer.status, answer.headers["allow"]) == (405, "GET")
    assert (await house.send("HEAD", "/v1/events/last")).status == 200


async def test_a_beat_that_comes_again_is_not_told_again(house: House) -> None:
    queen = await house.added()
    stands_at = queen.feed.id
    line = {"speaker": "queen bee", "text": "hello", "event": "detected", "at": "2026-01-31T12:00:00Z"}
    beat = {
        "hive_id": "localhost", "timestamp": "2026-01-31T12:00:00Z", "workers": [], "instance": "0" * 32,
        "state": "starting", "lines": [line],
    }  # fmt: skip

    for _ in range(2):
        assert (await house.post("/heartbeat", beat)).status == 200

    last = queen.feed.last(1).events[0]
    assert (last.text, last.speaker, last.hive, last.job_id) == ("hello", "bee hive", "localhost", None)
    assert int(last.id.split("-")[1]) == int(stands_at.split("-")[1]) + 1


async def test_beats_are_no_events(house: House) -> None:
    queen: Queen = await house.added(heartbeat_interval=0.1)
    stands_at = queen.feed.id

    def last_beat_ms() -> int | None:
        life = queen.hives.hive("localhost").standing.life
        return life and life.last_beat_ms

    first = last_beat_ms()
    await until(lambda: last_beat_ms() != first)

    assert queen.feed.id == stands_at
