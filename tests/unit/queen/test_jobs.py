"""A job's story: kept whole, told from any line on, ended explicitly, and bounded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

import rbee.server.streams
from rbee.errors import HiveFailed, Stopping, TooMany, UnknownJob, from_problem
from rbee.narration import ADDING, DETECTED
from rbee.queen.jobs import STORY_LIMIT, STORY_SIZE, STREAMS, Job, Jobs, Stories, job_event
from rbee.server.peer import Peer
from rbee.wire.codec import decode, encode
from rbee.wire.jobs import Done, JobStarted, JobView
from rbee.wire.lines import Line

pytestmark = pytest.mark.deadline(3)

Event = tuple[int, str, Any]


ADA = Peer(pid=4711, uid=1000, gid=1000)


def line(text: str) -> Line:
    return Line("queen bee", text, "adding", "2026-01-31T12:00:00.000Z")


def parse(chunk: bytes) -> Event:
    """A server-sent event as the standard reads it: fields, one a line, and an empty line."""
    assert chunk.endswith(b"\n\n")
    fields = dict(one.split(": ", 1) for one in chunk.decode().rstrip("\n").split("\n"))
    return int(fields["id"]), fields["event"], json.loads(fields["data"])


async def told(chunks: AsyncIterator[bytes]) -> list[Event]:
    return [parse(chunk) async for chunk in chunks]


def texts(events: list[Event]) -> list[str]:
    return [data["text"] for _, kind, data in events if kind == "line"]


async def a_story(lines: int = 3) -> Job:
    job = Job("add-hive", "localhost")
    for number in range(1, lines + 1):
        job.add(line(f"line {number}"))
    return job


# One story


async def test_a_story_is_told_from_its_first_line_to_its_end() -> None:
    job = await a_story(2)
    job.done(Done(None))
    assert await told(job.follow(0)) == [
        (1, "line", encode(line("line 1"))),
        (2, "line", encode(line("line 2"))),
        (3, "done", {"hive": None, "was_there": True, "model": None}),
    ]


async def test_a_failure_is_an_end_with_its_problem() -> None:
    job = await a_story(0)
    job.failed(HiveFailed("it refused", hint="look there", field="x"))
    ((number, kind, problem),), view = await told(job.follow(0)), job.view()

    error = from_problem(problem)
    assert (number, kind) == (1, "error")
    assert (type(error), error.message, error.hint, error.field) == (
        HiveFailed,
        "it refused",
        "look there",
        "x",
    )
    assert view.state == "error"


@pytest.mark.parametrize(
    ("after", "numbers"),
    [(0, [1, 2, 3, 4]), (1, [2, 3, 4]), (3, [4]), (4, [4]), (5, [4]), (999_999_999, [4])],
)
async def test_a_story_is_resumed_after_a_number_and_its_end_is_told_again(
    after: int, numbers: list[int]
) -> None:
    job = await a_story(3)
    job.done(Done(None))
    events = await told(job.follow(after))

    assert [number for number, _, _ in events] == numbers
    assert events[-1][1] == "done"


async def test_lines_come_as_they_happen_to_every_reader() -> None:
    job = await a_story(1)
    both_read = asyncio.Barrier(3)

    async def read() -> list[Event]:
        events = []
        async for chunk in job.follow(0):
            events.append(parse(chunk))
            await both_read.wait()
        return events

    readers = [asyncio.ensure_future(read()) for _ in range(2)]
    await both_read.wait()
    job.add(line("line 2"))
    await both_read.wait()
    job.done(Done(None))
    await both_read.wait()
    first, second = await asyncio.gather(*readers)

    assert first == second
    assert texts(first) == ["line 1", "line 2"]
    assert first[-1][1] == "done"


async def test_a_reader_who_comes_late_and_slow_misses_nothing() -> None:
    job = await a_story(1)
    events = []
    async for chunk in job.follow(0):
        events.append(parse(chunk))
        if len(events) == 1:
            for number in (2, 3, 4):
                job.add(line(f"line {number}"))
        elif len(events) == 2:
            job.done(Done(None))

    assert texts(events) == ["line 1", "line 2", "line 3", "line 4"]
    assert [number for number, _, _ in events] == [1, 2, 3, 4, 5]


async def test_a_reader_in_silence_is_told_that_the_story_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rbee.server.streams, "KEEP_ALIVE", 0.01)

    job = await a_story(0)
    chunks = []
    async for chunk in job.follow(0):
        chunks.append(chunk)
        if len(chunks) == 2:
            job.done(Done(None))
    first, second, end = chunks

    # A comment of server-sent events: a line that begins with a colon.
    assert first == second == b": still here\n\n"
    assert parse(end)[1] == "done"


async def test_any_text_stays_on_its_one_data_line() -> None:
    job = await a_story(0)
    job.add(line("a\nevent: done\ndata: {}\n\n\r\u2028größe 👑"))
    job.done(Done(None))
    assert texts(await told(job.follow(0))) == ["a\nevent: done\ndata: {}\n\n\r\u2028größe 👑"]


async def test_the_first_end_counts_and_nothing_is_told_after_it() -> None:
    job = await a_story(1)
    job.done(Done(None))
    ended = job.view()
    job.failed(Stopping("too late"))
    job.done(Done(None))
    job.add(line("too late"))
    assert job.view() == ended
    events = await told(job.follow(0))

    assert [kind for _, kind, _ in events] == ["line", "done"]
    assert (ended.state, ended.lines) == ("done", 1)
    assert ended.ended_at_ms is not None
    assert ended.ended_at_ms >= ended.started_at_ms


@pytest.mark.parametrize(
    ("size", "kept"), [(10, STORY_LIMIT), (2000, STORY_SIZE // 2000)], ids=["many lines", "long lines"]
)
async def test_a_story_is_bounded_and_says_so_and_its_end_is_never_dropped(size: int, kept: int) -> None:
    job = Job("add-hive", "localhost")
    for number in range(STORY_LIMIT + 500):
        job.add(line(f"{number}".rjust(size)))
    job.done(Done(None))
    *events, full, end = await told(job.follow(0))

    assert texts(events) == [f"{number}".rjust(size) for number in range(kept)]
    assert full[2]["event"] == "story-full"
    assert "journalctl RBEE_JOB_ID=" in full[2]["text"]
    assert end[1] == "done"


async def test_a_job_says_what_it_is_and_where_its_story_is() -> None:
    job = await a_story(2)
    number, kind, data = parse(job_event(job))

    assert job.started() == JobStarted("localhost", job.id, f"/v1/jobs/{job.id}/events")
    assert (number, kind, data) == (0, "job", encode(job.started()))
    view = job.view()
    assert decode(JobView, encode(view)) == view
    assert (view.kind, view.hive_id, view.state, view.lines, view.ended_at_ms) == (
        "add-hive",
        "localhost",
        "running",
        2,
        None,
    )


# All of them


async def test_jobs_are_found_by_id_and_listed_newest_first() -> None:
    jobs = Jobs(10)
    first, second = jobs.open("add-hive", "a"), jobs.open("shutdown", None)

    assert jobs.all() == [second, first]
    assert jobs.find(first.id) is jobs.job(first.id) is first
    assert jobs.find(None) is jobs.find("") is jobs.find("7" * 32) is None
    assert jobs.running("add-hive") is first
    assert jobs.running("remove-hive") is None
    first.done(Done(None))
    assert jobs.running("add-hive") is None


def test_a_job_that_is_not_kept_is_unknown_with_where_to_look() -> None:
    with pytest.raises(UnknownJob, match="there is no job 7") as caught:
        Jobs(5).job("7" * 32)

    assert caught.value.hint == "Only the last 5 jobs are kept; the journal has all of them."


async def test_the_oldest_job_that_ended_makes_room_and_running_ones_are_spared() -> None:
    jobs = Jobs(3)
    running = jobs.open("add-hive", "a")
    older, newer = jobs.open("add-hive", "b"), jobs.open("add-hive", "c")
    newer.done(Done(None))
    older.done(Done(None))

    latest = jobs.open("add-hive", "d")

    assert jobs.all() == [latest, newer, running]
    assert jobs.find(older.id) is None


async def test_no_job_begins_while_as_many_run_as_are_kept() -> None:
    jobs = Jobs(2)
    first = jobs.open("add-hive", "a")
    jobs.open("add-hive", "b")
    with pytest.raises(TooMany, match="2 jobs are running") as caught:
        jobs.open("add-hive", "c")
    assert "JobsMax=" in (caught.value.hint or "")
    first.failed(Stopping("x"))
    jobs.open("add-hive", "c")
    assert len(jobs.all()) == 2


async def test_a_shutdown_begins_however_many_run() -> None:
    jobs = Jobs(2)
    first, second = jobs.open("add-hive", "a"), jobs.open("add-hive", "b")

    shutdown = jobs.open("shutdown", None)

    assert jobs.all() == [shutdown, second, first]
    with pytest.raises(TooMany):
        jobs.open("add-hive", "c")
    first.failed(Stopping("x"))
    with pytest.raises(TooMany):
        jobs.open("add-hive", "c")
    second.failed(Stopping("x"))
    third = jobs.open("add-hive", "c")
    assert jobs.all() == [third, shutdown]


async def test_a_job_that_made_room_is_still_told_to_its_end_to_who_reads_it() -> None:
    jobs = Jobs(1)
    job = jobs.open("add-hive", "a")
    job.add(line("line 1"))
    stream = jobs.stream(job, 0, ADA)
    events = [parse(await anext(stream))]
    job.done(Done(None))
    jobs.open("add-hive", "b")
    assert [kind for _, kind, _ in events + await told(stream)] == ["line", "done"]


async def test_a_stream_may_begin_with_an_event_of_its_own() -> None:
    jobs = Jobs(1)
    job = jobs.open("add-hive", "a")
    job.done(Done(None))
    assert [kind for _, kind, _ in await told(jobs.stream(job, 0, ADA, first=job_event(job)))] == [
        "job",
        "done",
    ]


async def test_only_so_many_may_read_at_once_and_who_leaves_gives_the_place_back() -> None:
    jobs = Jobs(1)
    job = jobs.open("add-hive", "a")
    job.add(line("line 1"))
    streams = [jobs.stream(job, 0, ADA) for _ in range(STREAMS.a_process)]
    for stream in streams:
        await anext(stream)
    with pytest.raises(TooMany, match="64 stories are being read by process 4711"):
        jobs.stream(job, 0, ADA)

    # One leaves, one hears the end, one is cut off.
    await streams[0].aclose()  # type: ignore[attr-defined]
    await anext(jobs.stream(job, 0, ADA))

    job.done(Done(None))
    for stream in streams[1:]:
        assert parse(await anext(stream))[1] == "done"
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    for _ in range(STREAMS.a_process):
        await told(jobs.stream(job, 0, ADA))


async def test_a_reader_who_is_cut_off_while_waiting_gives_the_place_back() -> None:
    jobs = Jobs(1)
    job = jobs.open("add-hive", "a")

    for _ in range(2):
        reading = [asyncio.ensure_future(told(jobs.stream(job, 0, ADA))) for _ in range(STREAMS.a_process)]
        await asyncio.wait(reading, timeout=0)
        await asyncio.sleep(0)
        for one in reading:
            one.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
    assert isinstance(jobs.stream(job, 0, ADA), AsyncIterator)


async def test_closing_ends_every_story_and_a_shutdown_ends_well() -> None:
    jobs = Jobs(5)
    adding, ended, shutdown = (
        jobs.open("add-hive", "a"), jobs.open("remove-hive", "b"), jobs.open("shutdown", None),
    )  # fmt: skip
    ended.done(Done(None))
    reading = [asyncio.ensure_future(told(jobs.stream(job, 0, ADA))) for job in (adding, ended, shutdown)]
    await asyncio.sleep(0)
    jobs.close()
    (adding, cut_off), (ended, _), (shutdown, goodbye) = [
        (job.state, events[-1])
        for job, events in zip((adding, ended, shutdown), await asyncio.gather(*reading), strict=True)
    ]

    assert (adding, ended, shutdown) == ("error", "done", "done")
    assert type(from_problem(cut_off[2])) is Stopping
    assert goodbye[1:] == ("done", {"hive": None, "was_there": True, "model": None})


# Told by the narrator


async def test_a_line_goes_to_the_story_of_its_job_and_to_no_other() -> None:
    jobs = Jobs(5)
    mine, other = jobs.open("add-hive", "a"), jobs.open("add-hive", "b")
    stories = Stories(jobs)
    stories.narrate(ADDING, "mine", job_id=mine.id, hive="a", actor_uid="0")
    stories.about(job_id=mine.id).narrate(DETECTED, "mine too")
    stories.narrate(ADDING, "nobody's")
    stories.narrate(ADDING, "of a job long gone", job_id="7" * 32)
    mine.done(Done(None))
    other.done(Done(None))
    first, second = await told(mine.follow(0)), await told(other.follow(0))
    assert (first[0][2]["speaker"], first[0][2]["event"]) == ("queen bee", "adding")
    assert (texts(first), texts(second)) == (["mine", "mine too"], [])
