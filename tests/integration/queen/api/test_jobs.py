"""The routes for jobs and their stories."""

from __future__ import annotations

import asyncio
import json
import os

import pytest

from rbee.errors import from_problem
from rbee.queen.jobs import STREAMS
from rbee.server.peer import Peer
from rbee.wire.codec import decode
from rbee.wire.jobs import Done, JobView
from tests.integration.queen.served_queen import Served, ended, stream
from tests.integration.unix_http import TIMEOUT, post, request
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)


async def test_jobs_are_listed_and_shown(queen: Served) -> None:
    for host in ("a", "b"):
        queen.jobs.open("add-hive", host).done(Done(None))
    listed = await queen.ask(request("GET", "/v1/jobs"))
    shown = await queen.ask(request("GET", f"/v1/jobs/{listed.json['jobs'][0]['id']}"))

    assert [job["hive_id"] for job in listed.json["jobs"]] == ["b", "a"]
    assert decode(JobView, shown.json).state == "done"
    assert shown.json == listed.json["jobs"][0]


@pytest.mark.parametrize(
    ("last", "ids"), [(None, "1234"), ("0", "1234"), ("2", "34"), ("4", "4"), ("999", "4")]
)
async def test_a_story_is_resumed_after_the_last_event_that_was_heard(
    queen: Served, last: str | None, ids: str
) -> None:
    headers = {"Last_Event_ID": last} if last else {}
    head, events = await stream(
        queen, request("GET", f"/v1/jobs/{ended(queen.jobs, 3).id}/events", **headers)
    )

    assert "text/event-stream" in head
    assert "".join(event["id"] for event in events) == ids
    assert events[-1]["event"] == "done"


async def test_who_asks_for_a_stream_gets_the_story_in_the_same_answer(queen: Served) -> None:
    asked = post("/add-hive", {"host": "localhost"}, Accept="text/event-stream")
    telling = asyncio.ensure_future(stream(queen, asked))
    await until(lambda: queen.jobs.all() != [])
    (job,) = queen.jobs.all()
    job.done(Done(None))
    _, events = await telling
    assert json.loads(events[0]["data"])["job_id"] == job.id

    assert events[0]["event"] == "job"
    assert events[-1]["event"] == "done"


async def test_one_reader_too_many_is_refused_with_503(queen: Served) -> None:
    job = queen.jobs.open("shutdown", None)
    me = Peer(os.getpid(), os.geteuid(), os.getegid())
    places = [queen.jobs.stream(job, 0, me) for _ in range(STREAMS.a_process)]
    answer = await queen.ask(request("GET", f"/v1/jobs/{job.id}/events"))
    for place in places:
        await place.aclose()

    assert (answer.status, answer.headers["content-type"]) == (503, "application/problem+json")
    assert answer.json["type"] == "urn:rbee:problem:too-many"


async def test_a_shutdown_is_begun_and_told_also_with_all_places_taken(queen: Served) -> None:
    jobs = [queen.jobs.open("add-hive", f"gpu{number}") for number in range(8)]  # jobs_max of this queen
    me = Peer(os.getpid(), os.geteuid(), os.getegid())
    places = [queen.jobs.stream(jobs[0], 0, me) for _ in range(STREAMS.a_process)]
    telling = asyncio.ensure_future(stream(queen, post("/shutdown", {}, Accept="text/event-stream")))
    await until(lambda: queen.jobs.running("shutdown") is not None or telling.done())
    queen.jobs.close()
    head, events = await telling
    for place in places:
        await place.aclose()

    assert "200 OK" in head
    assert (events[0]["event"], events[-1]["event"]) == ("job", "done")


async def test_a_reader_who_hangs_up_gives_the_place_back(queen: Served) -> None:
    job = queen.jobs.open("add-hive", "localhost")
    for _ in range(3):
        reader, writer = await asyncio.open_unix_connection(str(queen.path))
        writer.write(request("GET", f"/v1/jobs/{job.id}/events"))
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT)
        assert queen.jobs._limits.taken == 1
        writer.close()
        await writer.wait_closed()
        await until(lambda: queen.jobs._limits.taken == 0)


async def test_open_stories_end_at_once_and_explicitly_when_the_queen_stops(queen: Served) -> None:
    jobs = [queen.jobs.open("add-hive", "localhost"), queen.jobs.open("shutdown", None)]
    telling = [
        asyncio.ensure_future(stream(queen, request("GET", f"/v1/jobs/{job.id}/events"))) for job in jobs
    ]
    await until(lambda: queen.jobs._limits.taken == 2)
    began = asyncio.get_running_loop().time()
    await queen.stop()
    stories = [events for _, events in await asyncio.gather(*telling)]
    (cut_off, shutdown), took = stories, asyncio.get_running_loop().time() - began

    assert cut_off[-1]["event"] == "error"
    assert from_problem(json.loads(cut_off[-1]["data"])).message == "the queen is being stopped"
    assert shutdown[-1]["event"] == "done"
    assert took < 1
