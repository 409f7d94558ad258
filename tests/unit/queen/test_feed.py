"""The feed: numbered without gap or double, kept over the queen's end, bounded, and told to whoever reads."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rbee.queen.backlog
import rbee.queen.feed
import rbee.server.streams
from rbee.errors import TooMany
from rbee.narration import ADDING, HIVE_OFFLINE, QUEEN_STARTED, Event, Narrator
from rbee.queen.backlog import KEPT, KEPT_SIZE
from rbee.queen.feed import RETRY_AFTER, WATCHERS, Feed, FeedFile
from rbee.server.peer import Peer
from rbee.wire.codec import decode, encode
from rbee.wire.events import FeedEvent, Gap
from rbee.wire.lines import Line

pytestmark = pytest.mark.deadline(10)

Result = TypeVar("Result")

ADA = Peer(pid=4711, uid=1000, gid=1000)


def run(work: Coroutine[Any, Any, Result]) -> Result:
    """For the examples of hypothesis, which are no coroutines."""

    async def scenario() -> Result:
        return await asyncio.wait_for(work, 10)

    return asyncio.run(scenario())


class Tape(Narrator):
    """The journal."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        self.told.append((event.name, text))


class Block:
    """A server-sent event, or what has only an id, as the standard reads it."""

    def __init__(self, chunk: bytes) -> None:
        assert chunk.endswith(b"\n\n")
        fields = dict(one.split(": ", 1) for one in chunk.decode().rstrip("\n").split("\n"))
        self.id = fields["id"]
        self.kind = fields.get("event", "")
        self.data = json.loads(fields["data"]) if "data" in fields else None

    @property
    def number(self) -> int:
        return int(self.id.split("-")[1])

    @property
    def text(self) -> str:
        event = decode(FeedEvent, self.data)
        assert event.id == self.id
        return event.text


async def some(stream: AsyncIterator[bytes], count: int) -> list[Block]:
    return [Block(await anext(stream)) for _ in range(count)]


async def rest(feed: Feed, stream: AsyncIterator[bytes]) -> list[Block]:
    """What a stream has to tell up to the end of the feed."""
    feed.close()
    return [Block(chunk) async for chunk in stream]


def tell(feed: Feed, *texts: str, **fields: str) -> None:
    for text in texts:
        feed.narrate(ADDING, text, **fields)


def texts(feed: Feed) -> list[str]:
    return [event.text for event in feed.last(KEPT).events]


def a_feed(path: Path | None, journal: Narrator | None = None, **options: Any) -> Feed:
    return Feed(FeedFile(path), journal or Narrator(), **options)


# What is told


async def test_an_event_says_all_there_is_to_know() -> None:
    feed = a_feed(None)
    stream = feed.stream(ADA)
    feed.narrate(HIVE_OFFLINE, "a is offline", hive="a", job_id="7" * 32, actor_uid="1000", actor_pid="5")
    feed.narrate(QUEEN_STARTED, "queen-rbee is awake")
    position, offline, started = await rest(feed, stream)

    assert (position.kind, position.data) == ("", None)
    assert [block.number for block in (position, offline, started)] == [0, 1, 2]
    assert offline.kind == started.kind == "narrated"
    event = decode(FeedEvent, offline.data)
    assert event == FeedEvent(
        offline.id, event.at, "hive-offline", "queen bee", 4, "a is offline", "a", "7" * 32, 1000
    )
    assert decode(FeedEvent, started.data).hive is None


def test_whatever_is_narrated_can_be_read() -> None:
    @given(st.text(st.characters(), max_size=2500))
    def holds(text: str) -> None:
        async def scenario() -> Block:
            feed = a_feed(None)
            stream = feed.stream(ADA)
            tell(feed, text)
            _, block = await some(stream, 2)
            await stream.aclose()  # type: ignore[attr-defined]
            return block

        told = run(scenario()).text
        has_surrogates = any(0xD800 <= ord(character) <= 0xDFFF for character in text)
        assert has_surrogates or told == text[:2000]

    holds()


async def test_a_hives_line_is_the_hives_with_its_priority_and_is_told_once() -> None:
    feed = a_feed(None)
    line = Line("queen bee", "Detected", "detected", "2026-01-31T12:00:00Z")
    for _ in range(3):
        feed.relay("a", line, "7" * 32)
    feed.relay("b", line, None)
    feed.relay("a", Line("bee hive", "?", "not-known-here", "2026-01-31T12:00:00Z"), None)
    mine, others, unknown = list(feed.last(10).events)

    assert (mine.speaker, mine.text, mine.hive, mine.job_id, mine.priority) == (
        "bee hive", "Detected", "a", "7" * 32, 5,
    )  # fmt: skip
    assert mine.at != "2026-01-31T12:00:00Z"  # all times of the feed are of one clock
    assert (others.hive, others.job_id) == ("b", None)
    assert (unknown.event, unknown.priority) == ("not-known-here", 6)


async def test_another_thread_may_narrate() -> None:
    feed = a_feed(None)
    stream = feed.stream(ADA)
    await anext(stream)
    telling = threading.Thread(target=tell, args=(feed, "from elsewhere"))
    telling.start()
    block = Block(await anext(stream))
    telling.join()
    await stream.aclose()
    assert [block.text] == ["from elsewhere"]


# Reading


async def test_a_stream_begins_with_what_comes_from_now_on_and_says_where_that_is() -> None:
    feed = a_feed(None)
    tell(feed, "before")
    before, stream = feed.id, feed.stream(ADA)
    first = await some(stream, 1)
    tell(feed, "after")
    position, after = first + await rest(feed, stream)

    assert (position.id, position.data) == (before, None)
    assert after.text == "after"


@pytest.mark.parametrize("seen", range(4))
async def test_a_reader_goes_on_after_what_he_has_seen(seen: int) -> None:
    feed = a_feed(None)
    tell(feed, "1", "2", "3")
    stream = feed.stream(ADA, after=f"{feed.id.split('-')[0]}-{seen}")
    position, *events = await rest(feed, stream)

    assert (position.number, position.data) == (seen, None)
    assert [block.text for block in events] == ["1", "2", "3"][seen:]
    assert [block.number for block in events] == [1, 2, 3][seen:]


async def test_all_that_is_kept_is_told_or_what_came_since_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    feed = a_feed(None)
    for second in range(3):
        now = f"2026-01-31T12:00:0{second}.500Z"
        monkeypatch.setattr("rbee.narration.now_rfc3339", lambda now=now: now)
        tell(feed, str(second))
    at = 1769860801500
    streams = [feed.stream(ADA, since_ms=since) for since in (0, at, at + 1)]
    all_of_it, since, later = [await rest(feed, stream) for stream in streams]
    told = [[block.text for block in blocks[1:]] for blocks in (all_of_it, since, later)]

    assert told == [["0", "1", "2"], ["1", "2"], ["2"]]


@pytest.mark.parametrize(
    "after", ["f" * 16 + "-1", "same-9", "same-100"], ids=["another epoch", "not yet", "never"]
)
async def test_who_has_seen_what_is_not_known_here_is_told_of_a_gap_and_then_all_there_is(after: str) -> None:
    feed = a_feed(None)
    tell(feed, "1", "2")
    asked = after.replace("same", feed.id.split("-")[0])
    gap, *events = await rest(feed, feed.stream(ADA, after=asked))

    assert gap.kind == "gap"
    assert decode(Gap, gap.data) == Gap(asked, events[0].id)
    assert gap.number == 0  # who has seen the gap only goes on with the first event
    assert [block.text for block in events] == ["1", "2"]


async def test_who_has_seen_what_is_no_longer_kept_is_told_of_a_gap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rbee.queen.backlog, "KEPT", 2)

    feed = a_feed(None)
    tell(feed, "1", "2", "3", "4")
    epoch = feed.id.split("-")[0]
    assert Block(await anext(feed.stream(ADA, after=f"{epoch}-2"))).data is None  # it has missed nothing
    gap, *events = await rest(feed, feed.stream(ADA, after=f"{epoch}-1"))

    assert (gap.kind, gap.number) == ("gap", 2)
    assert [block.number for block in events] == [3, 4]


HIVE = "995"
"""The uid of the hive, by whose heartbeats the catalog changes, too."""


async def test_what_an_operator_did_is_not_pushed_out_by_what_machines_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.queen.backlog, "KEPT", 3)
    path = tmp_path / "events"

    feed = a_feed(path, daemons={int(HIVE)})
    tell(feed, "by ada", actor_uid="1000")
    tell(feed, "2", actor_uid=HIVE)
    tell(feed, "by root", actor_uid="0")
    tell(feed, *map(str, range(4, 20)))
    kept = ["by ada", "by root", "17", "18", "19"]
    assert texts(feed) == kept
    epoch = feed.id.split("-")[0]
    for wanted, numbers in (
        ({"since_ms": 0}, [(0, ""), (1, "narrated"), (3, "narrated"), (16, "gap"), (17, "narrated")]),
        ({"after": f"{epoch}-1"}, [(1, ""), (3, "narrated"), (16, "gap"), (17, "narrated")]),
        ({"after": f"{epoch}-3"}, [(16, "gap"), (17, "narrated")]),
    ):
        stream = feed.stream(ADA, **wanted)  # type: ignore[arg-type]
        blocks = await some(stream, len(numbers))
        assert [(block.number, block.kind) for block in blocks] == numbers
        await stream.aclose()

    again = a_feed(path, daemons={int(HIVE)})
    assert (again.id, texts(again)) == (feed.id, kept)
    tell(again, "20")
    assert texts(again) == ["by ada", "by root", "18", "19", "20"]


async def test_a_reader_who_is_too_slow_is_told_of_the_gap_in_the_middle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rbee.queen.backlog, "KEPT", 3)

    feed = a_feed(None)
    stream = feed.stream(ADA)
    tell(feed, "1", "2")
    seen = await some(stream, 2)
    tell(feed, "3", "4", "5", "6")
    blocks = seen + await rest(feed, stream)

    assert [(block.number, block.kind) for block in blocks] == [
        (0, ""), (1, "narrated"), (3, "gap"), (4, "narrated"), (5, "narrated"), (6, "narrated"),
    ]  # fmt: skip
    gap = decode(Gap, blocks[2].data)
    assert (gap.after, gap.first) == (blocks[1].id, blocks[3].id)


async def test_the_end_of_the_feed_is_told_after_all_that_came_before_it() -> None:
    feed = a_feed(None)
    stream = feed.stream(ADA)
    await anext(stream)
    waiting = asyncio.ensure_future(anext(stream))
    await asyncio.sleep(0)
    tell(feed, "1", "2")
    feed.close()
    assert [block.text for block in [Block(await waiting), *[Block(chunk) async for chunk in stream]]] == [
        "1",
        "2",
    ]


async def test_a_reader_in_silence_is_told_that_the_stream_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rbee.server.streams, "KEEP_ALIVE", 0.01)

    stream = a_feed(None).stream(ADA)
    told = [await anext(stream) for _ in range(3)]
    await stream.aclose()
    assert told[1:] == [b": still here\n\n"] * 2


async def test_only_so_many_may_watch_at_once_and_who_leaves_gives_the_place_back() -> None:
    feed = a_feed(None)
    streams = [feed.stream(ADA) for _ in range(WATCHERS.a_process)]
    with pytest.raises(TooMany, match="32 streams of events are being read by process 4711"):
        feed.stream(ADA)
    await streams[0].aclose()
    feed.stream(ADA)


async def test_the_last_events_are_told_of_all_or_of_one_hive() -> None:
    feed = a_feed(None)
    tell(feed, "1", "2", hive="a")
    tell(feed, "3")
    tell(feed, "4", hive="a")

    def last(limit: int, hive: str | None = None) -> list[str]:
        found = feed.last(limit, hive)
        assert found.id == feed.id
        return [event.text for event in found.events]

    assert last(10) == ["1", "2", "3", "4"]
    assert last(2) == ["3", "4"]
    assert last(2, "a") == last(2, "A") == ["2", "4"]
    assert last(0) == last(5, "b") == []


# Over the queen's end


async def test_the_next_queen_goes_on_with_number_and_events(tmp_path: Path) -> None:
    first = a_feed(tmp_path / "events")
    tell(first, "1", "2")
    seen = first.id
    tell(first, "3")  # and is killed
    second = a_feed(tmp_path / "events")
    tell(second, "4")
    position, *events = await rest(second, second.stream(ADA, after=seen))

    assert [block.number for block in events] == [3, 4]
    assert [block.text for block in events] == ["3", "4"]
    assert len({block.id.split("-")[0] for block in (position, *events)}) == 1
    assert (tmp_path / "events").stat().st_mode & 0o777 == 0o600


async def test_without_a_file_each_queen_has_an_epoch_of_her_own(tmp_path: Path) -> None:
    feeds = [a_feed(None), a_feed(None), a_feed(tmp_path / "one"), a_feed(tmp_path / "other")]
    assert len({feed.id.split("-")[0] for feed in feeds}) == 4


async def test_of_a_line_that_was_cut_short_by_a_kill_nothing_is_left(tmp_path: Path) -> None:
    path = tmp_path / "events"

    async def go_on() -> list[tuple[str, str]]:
        feed = a_feed(path)
        tell(feed, "third")
        return [(event.id, event.text) for event in feed.last(10).events]

    feed = a_feed(path)
    tell(feed, "first", "second")
    stands_at = feed.id
    whole = path.read_bytes()
    epoch, last = stands_at.split("-")[0], whole.splitlines(keepends=True)[-1]

    for left in range(len(last)):
        path.write_bytes(whole[: len(whole) - len(last) + left])
        assert await go_on() == [(f"{epoch}-1", "first"), (f"{epoch}-2", "third")], left
        # And the queen after this one, too.
        assert [text for _, text in await go_on()] == ["first", "third", "third"]


DAMAGE: dict[str, Callable[[list[bytes]], bytes]] = {
    "no JSON": lambda lines: b"\0" * 10 + b"\n",
    "no object": lambda lines: b"7\n",
    "no id": lambda lines: b"{}\n",
    "an id that is none": lambda lines: b'{"id": "x"}\n',
    "a line is missing": lambda lines: lines[0] + lines[2],
    "a line twice": lambda lines: b"".join(lines) + lines[2],
    "of two epochs": lambda lines: lines[0].replace(b'"id": "', b'"id": "f') + lines[1],
    "too long": lambda lines: b"x" * 5 * KEPT_SIZE,
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_what_no_queen_has_written_is_begun_anew(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "events"

    feed = a_feed(path)
    tell(feed, "1", "2", "3")
    stands_at = feed.id
    path.write_bytes(DAMAGE[damage](path.read_bytes().splitlines(keepends=True)))
    tell(a_feed(path), "4")
    feed = a_feed(path)
    gap, event = await rest(feed, feed.stream(ADA, after=stands_at))

    assert gap.kind == "gap"
    assert (event.number, event.text) == (1, "4")
    assert event.id.split("-")[0] != stands_at.split("-")[0]
    assert "is not a queen's event file and is replaced" in caplog.text


# Bounds


@pytest.mark.parametrize("size", [10, 2000], ids=["many", "long"])
async def test_what_is_kept_is_bounded_in_ram_and_in_the_file(tmp_path: Path, size: int) -> None:
    path = tmp_path / "events"

    feed, largest = a_feed(path), 0
    for number in range(3 * KEPT):
        tell(feed, str(number).rjust(size, "é"))
        largest = max(largest, path.stat().st_size)
    kept = feed.last(KEPT).events
    lines = [json.dumps(encode(event)) for event in kept]
    assert len(kept) <= KEPT
    assert sum(map(len, lines)) <= KEPT_SIZE
    assert len(kept) == KEPT or sum(map(len, lines)) > KEPT_SIZE - 2 * len(lines[0])
    assert largest <= 2 * KEPT_SIZE + len(lines[0])
    assert len(path.read_bytes().splitlines()) <= 2 * KEPT
    assert feed.last(KEPT) == a_feed(path).last(KEPT)
    assert [file.name for file in tmp_path.iterdir()] == ["events"]


def test_a_reader_who_keeps_up_misses_nothing_and_hears_nothing_twice_however_queens_die(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They die after any number of events, in the middle of the last write."""
    monkeypatch.setattr(rbee.queen.backlog, "KEPT", 5)
    numbers = iter(range(1_000_000))

    @settings(max_examples=30)
    @given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 400)), min_size=1, max_size=8))
    def holds(lives: list[tuple[int, int]]) -> None:
        path = tmp_path / str(next(numbers))
        seen: list[tuple[str, str]] = []

        async def live(count: int, cut: int) -> None:
            feed = a_feed(path)
            stream = feed.stream(ADA, after=seen[-1][0] if seen else None, since_ms=0)
            told = [str(next(numbers)) for _ in range(count)]
            tell(feed, *told)
            for block in await rest(feed, stream):
                if block.data is not None:
                    assert block.kind == "narrated"
                    seen.append((block.id, block.text))
            tell(feed, "cut")
            line = path.read_bytes().splitlines(keepends=True)[-1]
            os.truncate(path, path.stat().st_size - 1 - cut % len(line))

        for count, cut in lives:
            run(live(count, cut))
        assert [int(one.split("-")[1]) for one, _ in seen] == list(range(1, len(seen) + 1))
        texts = [int(text) for _, text in seen]
        assert texts == sorted(set(texts))

    holds()


# A file that cannot be written


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Leaves so many bytes for what is written from now on."""
    left = [1 << 40]
    write = os.write

    def taken(fd: int, content: bytes) -> int:
        if not left[0] and content:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        count = write(fd, content[: left[0]])
        left[0] -= count
        return count

    monkeypatch.setattr("rbee.queen.feed.os.write", taken)

    def leave(count: int) -> None:
        left[0] = count

    return leave


@pytest.mark.parametrize("left", [0, 10, 300])
async def test_a_full_run_stops_nobody_and_is_said_once_and_room_mends_it(
    tmp_path: Path, room: Callable[[int], None], left: int
) -> None:
    path, journal, clock = tmp_path / "events", Tape(), Clock()

    feed = a_feed(path, journal, clock=clock)
    tell(feed, "1", "2")
    stream = feed.stream(ADA, since_ms=0)
    room(left)
    tell(feed, "3", "4", "5")
    assert [name for name, _ in journal.told] == ["feed-in-ram"]
    assert "No space left on device" in journal.told[0][1]
    # No file that the next queen would go on with: these numbers are given away.
    assert not path.exists()
    clock.now += RETRY_AFTER / 2
    tell(feed, "6")
    assert not path.exists()
    clock.now += RETRY_AFTER
    tell(feed, "7")
    assert len(journal.told) == 1  # nor is it said again
    room(1 << 40)
    clock.now += RETRY_AFTER
    tell(feed, "8")
    assert [name for name, _ in journal.told] == ["feed-in-ram", "feed-in-file"]
    tell(feed, "9")

    next_one = a_feed(path)
    assert next_one.last(KEPT) == feed.last(KEPT)
    told = [block.text for block in (await rest(feed, stream))[1:]]
    assert [text for text in told if len(text) == 1] == list("123456789")
    assert len(told) == 9 + 2


async def test_a_directory_that_is_not_there_leaves_the_feed_in_ram(tmp_path: Path) -> None:
    journal = Tape()

    feed = a_feed(tmp_path / "nowhere" / "events", journal)
    tell(feed, "1")
    told = texts(feed)

    assert [name for name, _ in journal.told] == ["feed-in-ram"]
    assert "nowhere/events cannot be written: No such file or directory" in journal.told[0][1]
    assert told == [journal.told[0][1], "1"]


async def test_what_cannot_be_rewritten_is_not_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file that is made aside, and for which there is no room."""
    monkeypatch.setattr(rbee.queen.backlog, "KEPT", 3)
    path, journal = tmp_path / "events", Tape()

    def fails(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    feed = a_feed(path, journal)
    tell(feed, "1", "2", "3", "4", "5")
    monkeypatch.setattr("rbee.queen.feed.os.replace", fails)
    tell(feed, "6")
    assert texts(feed) == ["5", "6", journal.told[0][1]]
    assert list(tmp_path.iterdir()) == []


async def test_events_of_a_queen_of_another_version_are_told_with_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "events"

    first = Feed(FeedFile(path), Narrator())
    first.narrate(ADDING, "one")
    first.narrate(ADDING, "two", actor_uid="3420080244")
    await first.end()
    older, newer = (json.loads(line) for line in path.read_text().splitlines())
    del older["speaker"]
    lines = ({**older, "colour": "red"}, newer)
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    feed = Feed(FeedFile(path), Narrator())

    one, two = feed.last(10).events
    assert (one.text, one.problem) == ("one", "speaker is missing")
    assert (two.text, two.problem, two.actor_uid) == ("two", None, 3420080244)
    stream = feed.stream(ADA, since_ms=0)
    blocks = await rest(feed, aiter(stream))
    assert [block.text for block in blocks if block.data] == ["one", "two"]
    await feed.end()
