"""A job's story as a stream: resumed, cut short, read by many, by slow ones, and by nobody."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from rbee.errors import PROBLEM_PREFIX
from rbee.server.limits import Bound
from rbee.wire.jobs import JobStarted
from rbee.wire.routes import QueenRoutes
from tests.integration.house import ADD, House, Story, parse_story, soon, told, until
from tests.integration.test_add_hive import STORY


async def add_to_the_end(house: House) -> JobStarted:
    await house.wake_queen()
    job: JobStarted = await house.ask(QueenRoutes.ADD_HIVE, ADD)
    assert (await house.story(QueenRoutes.EVENTS, job_id=job.job_id).end()).kind == "done"
    return job


async def adding_held_up(house: House) -> JobStarted:
    """A job that waits for systemd to start the hive; `may_start` lets it go on."""
    house.systemd.may_start.clear()
    job: JobStarted = await house.ask(QueenRoutes.ADD_HIVE, ADD)
    await house.journal.says(event="waking", job_id=job.job_id)
    return job


async def read_to_end(reader: asyncio.StreamReader) -> bytes:
    """What comes up to the last chunk of the stream (chunked coding of RFC 9112)."""
    content = b""
    while size := int(await soon(reader.readline()), 16):
        content += await soon(reader.readexactly(size))
        await soon(reader.readexactly(2))
    return content


async def test_last_event_id_resumes_after_exactly_that_event(house: House) -> None:
    job = await add_to_the_end(house)

    for seen in range(len(STORY) + 1):
        answer = await house.send("GET", job.events, headers={"Last-Event-ID": str(seen)})

        assert answer.status == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert answer.headers["cache-control"] == "no-store"
        assert [event.id for event in answer.events] == list(range(seen + 1, len(STORY) + 2))
        assert [told(event) for event in answer.events[:-1]] == STORY[seen:]
        assert answer.events[-1].kind == "done"


async def test_who_has_seen_the_end_is_told_the_end_again(house: House) -> None:
    job = await add_to_the_end(house)

    for seen in (len(STORY) + 1, len(STORY) + 2, 999_999_999):
        answer = await house.send("GET", job.events, headers={"Last-Event-ID": str(seen)})

        assert [(event.id, event.kind) for event in answer.events] == [(len(STORY) + 1, "done")]


async def test_a_reader_who_comes_back_while_the_story_goes_on_misses_nothing(house: House) -> None:
    await house.wake_queen()
    detected = house.gate()
    house.detect_after(detected)
    story = await house.add().begins()
    await story.to("unknown capabilities")
    job = await house.ask(QueenRoutes.JOB, job_id=story.job_id)
    assert (job.state, job.ended_at_ms, job.lines) == ("running", None, 5)

    async with house.reader(JobStarted("localhost", job.id, job.events), after=3) as reader:
        detected.set()
        events = parse_story(await read_to_end(reader))

    assert [told(event) for event in events[:-1]] == STORY[3:]
    assert events[-1].kind == "done"


async def test_a_last_event_id_that_is_no_number_is_refused(house: House) -> None:
    job = await add_to_the_end(house)

    for text in ("x", "-1", "1.5", "", "1" * 10, "\xb2", "0x1", "1,2"):
        answer = await house.send("GET", job.events, headers={"Last-Event-ID": text})

        assert answer.status == 400, text
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json["type"] == PROBLEM_PREFIX + "bad-input"
        assert answer.json["field"] == "Last-Event-ID"


async def test_the_story_comes_with_the_request_for_who_asks_for_a_stream(house: House) -> None:
    await house.wake_queen()

    answer = await house.send(
        "POST", "/add-hive", json.dumps({"host": "localhost"}).encode(), {"Accept": "text/event-stream"}
    )

    job, *events = answer.events
    assert (job.id, job.kind) == (0, "job")
    assert job.data["hive_id"] == "localhost"
    assert job.data["events"] == f"/v1/jobs/{job.data['job_id']}/events"
    assert [event.id for event in events] == list(range(1, len(STORY) + 2))


async def test_a_reader_that_leaves_neither_ends_the_job_nor_stays_counted(house: House) -> None:
    queen = await house.wake_queen()
    job = await adding_held_up(house)

    for _ in range(3):
        async with house.reader(job) as reader:
            await soon(reader.readuntil(b"\n\n"))
            assert queen.jobs._limits.taken == 1
        await until(lambda: queen.jobs._limits.taken == 0)
    house.systemd.may_start.set()

    lines, end = await house.story(QueenRoutes.EVENTS, job_id=job.job_id).rest()
    assert (lines, end.kind) == (STORY, "done")


async def test_more_readers_than_there_may_be_are_refused_and_a_place_that_gets_free_is_given(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.queen.jobs.STREAMS", Bound(total=2, kept=0, a_user=2, a_process=2))
    await house.wake_queen()
    job = await adding_held_up(house)
    async with house.reader(job) as first:
        await soon(first.readuntil(b"\n\n"))
        async with house.reader(job) as second:
            await soon(second.readuntil(b"\n\n"))
            answer = await house.send("GET", job.events)
            assert (answer.status, answer.json["type"]) == (503, PROBLEM_PREFIX + "too-many")
        house.systemd.may_start.set()
        await rest_of_stream(first)

    assert (await house.story(QueenRoutes.EVENTS, job_id=job.job_id).end()).kind == "done"


async def test_a_slow_reader_of_a_long_story_is_told_its_end_too(house: House) -> None:
    queen = await house.wake_queen()
    job = await adding_held_up(house)
    async with house.reader(job) as reader:
        await soon(reader.readuntil(b"\n\n"))
        reader._transport.pause_reading()  # type: ignore[attr-defined]  # a reader that has stopped to read
        for number in range(20):
            answer = await house.post("/heartbeat", starting_beat(job.job_id, lines=60, mark=number))
            assert answer.status == 200
        house.systemd.may_start.set()
        running = queen.jobs.job(job.job_id)
        await until(lambda: running.state == "done")
        reader._transport.resume_reading()  # type: ignore[attr-defined]

        events = parse_story(await rest_of_stream(reader))

    assert events[-1].kind == "done"
    assert [event.id for event in events] == list(range(events[0].id, events[-1].id + 1))


async def rest_of_stream(reader: asyncio.StreamReader) -> bytes:
    """As read_to_end(), from within a story: whole chunks, from the next that begins."""
    await soon(reader.readline())
    return await read_to_end(reader)


def starting_beat(job_id: str, *, lines: int, mark: int) -> dict[str, Any]:
    """A beat full of lines, of a hive that does not serve yet."""
    line = {"speaker": "bee hive", "event": "detected", "at": "2026-01-31T12:00:00Z"}
    return {
        "hive_id": "localhost",
        "timestamp": "2026-01-31T12:00:00Z",
        "workers": [],
        "instance": "0" * 32,
        "state": "starting",
        "job_id": job_id,
        "lines": [{**line, "text": f"{mark}.{number} ".ljust(1900, "z")} for number in range(lines)],
    }


async def test_a_story_has_an_end_however_many_lines_a_hive_sends(house: House) -> None:
    await house.wake_queen()
    job = await adding_held_up(house)
    for number in range(20):
        answer = await house.post("/heartbeat", starting_beat(job.job_id, lines=64, mark=number))
        assert answer.status == 200
    house.systemd.may_start.set()

    lines, end = await house.story(QueenRoutes.EVENTS, job_id=job.job_id).rest()

    assert len(lines) <= 1000
    assert end.kind == "done"


async def test_a_hive_may_speak_for_nobody_but_itself(house: House) -> None:
    await house.wake_queen()
    job = await adding_held_up(house)
    beat = starting_beat(job.job_id, lines=1, mark=0)
    beat["lines"][0]["speaker"] = "queen bee"
    assert (await house.post("/heartbeat", beat)).status == 200
    house.systemd.may_start.set()

    lines, _end = await house.story(QueenRoutes.EVENTS, job_id=job.job_id).rest()

    assert next(line for line in lines if "zzz" in line).startswith("(bee hive) ")


async def test_only_so_many_jobs_are_kept_and_the_oldest_that_ended_gives_way(house: House) -> None:
    await house.wake_queen(jobs_max=2)
    stories: list[Story] = []
    for _ in range(3):
        story = house.add()
        assert (await story.end()).kind == "done"
        stories.append(story)

    jobs = (await house.ask(QueenRoutes.JOBS)).jobs

    assert [job.id for job in jobs] == [stories[2].job_id, stories[1].job_id]
    answer = await house.send("GET", f"/v1/jobs/{stories[0].job_id}/events")
    assert (answer.status, answer.json["type"]) == (404, PROBLEM_PREFIX + "unknown-job")
    assert "journal" in answer.json["hint"]


async def test_while_as_many_jobs_run_as_are_kept_another_is_refused(house: House) -> None:
    await house.wake_queen(jobs_max=1)
    house.systemd.may_start.clear()
    running = await house.add().begins()

    answer = await house.post("/add-hive", {"host": "localhost"})

    assert (answer.status, answer.json["type"]) == (503, PROBLEM_PREFIX + "too-many")
    house.systemd.may_start.set()
    assert (await running.end()).kind == "done"
