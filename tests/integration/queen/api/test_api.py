"""The queen's routes: who may use which, what they answer, and that bad input writes nothing."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from rbee import __version__
from rbee.errors import from_problem
from rbee.narration import SHUTTING_DOWN_HIVES
from rbee.queen.hives.hives import Hives as Rules
from rbee.queen.hives.work import HiveWork
from rbee.queen.jobs import STREAMS, Job, Jobs, Stories
from rbee.queen.store.store import Store
from rbee.scope import TARGET
from rbee.server.peer import Peer
from rbee.systemd.daemon import Notifier
from rbee.wire.codec import decode
from rbee.wire.hives import Hives
from rbee.wire.jobs import Done, JobStarted, JobView
from rbee.wire.routes import QueenRoutes
from tests.integration.unix_http import TIMEOUT, Answer, post, raw, request, served
from tests.unit.played_systemd import PlayedSystemd
from tests.unit.queens import a_queen as open_queen
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)


HIVE_UID = 990
ME, ROOT, HIVE, SOMEBODY = os.geteuid(), 0, HIVE_UID, 1000
BEAT = {
    "hive_id": "localhost",
    "timestamp": "2026-01-31T12:00:00Z",
    "workers": [],
    "instance": "1" * 32,
}
NO_JOB = "7" * 32


# What is answered


@dataclass
class Served:
    path: Path
    rules: Rules
    work: HiveWork
    jobs: Jobs
    catalog: Store
    systemd: PlayedSystemd
    stop: Callable[[], Awaitable[None]]

    async def ask(self, asked: bytes) -> Answer:
        return await raw(self.path, asked)


@asynccontextmanager
async def a_queen(tmp_path: Path, notifier: Notifier) -> AsyncIterator[Served]:
    systemd = PlayedSystemd()
    async with open_queen(tmp_path, systemd=systemd, jobs_max=8) as queen:

        async def stopping() -> None:
            await queen.work.end()
            await queen.hives.end()
            queen.jobs.close()
            queen.feed.close()

        async with served(queen.app(), tmp_path / "queen.sock", notifier, stopping=stopping) as stop:
            yield Served(
                tmp_path / "queen.sock", queen.hives, queen.work, queen.jobs, queen.catalog, systemd, stop
            )


@pytest.fixture
@asynccontextmanager
async def queen(tmp_path: Path, silent_notifier: Notifier) -> AsyncIterator[Served]:
    """A queen who is served."""
    async with a_queen(tmp_path, silent_notifier) as queen:
        yield queen


async def test_health_says_the_version(queen: Served) -> None:
    answer = await queen.ask(request("GET", "/health"))

    assert (answer.status, answer.json) == (200, {"status": "ok", "version": __version__})


async def test_adding_answers_at_once_with_the_job_and_its_stream(queen: Served) -> None:
    answer = await queen.ask(post("/add-hive", {"host": "localhost", "port": 8600}))
    job = queen.jobs.job(answer.json["job_id"])

    assert answer.status == 202
    assert decode(JobStarted, answer.json) == JobStarted("localhost", job.id, f"/v1/jobs/{job.id}/events")
    assert job.kind == "add-hive"


async def test_removing_and_shutting_down_answer_the_same_way(queen: Served) -> None:
    answers = [
        await queen.ask(request("DELETE", "/v1/hives/localhost")),
        await queen.ask(request("POST", "/shutdown", b"")),
        await queen.ask(request("POST", "/shutdown", b"")),
    ]
    # Once the remote hives, of which there are none, have been told.
    await until(lambda: ("stop", TARGET) in queen.systemd.asked)
    removing, shutdown, again = answers

    assert [one.status for one in (removing, shutdown, again)] == [202] * 3
    assert removing.json["hive_id"] == "localhost"
    assert shutdown.json["hive_id"] is None
    assert again.json["job_id"] == shutdown.json["job_id"]


async def test_who_asked_is_known_by_the_kernel_s_word(queen: Served) -> None:
    asked: list[dict[str, str]] = []
    shut_down = queen.work.shut_down
    queen.work.shut_down = lambda actor: (asked.append(actor), shut_down(actor))[1]  # type: ignore[method-assign]
    await queen.ask(request("POST", "/shutdown", b"", Actor_Uid="0"))
    assert asked[0] == {"actor_uid": str(ME), "actor_pid": str(os.getpid())}


async def test_hives_are_listed_and_shown(queen: Served) -> None:
    await queen.catalog.hives.add("localhost", "localhost", 8600)
    await queen.rules.load()
    listed, shown = [await queen.ask(request("GET", path)) for path in ("/v1/hives", "/v1/hives/localhost")]

    (hive,) = decode(Hives, listed.json).hives
    assert listed.json["hives"] == [shown.json]
    assert (hive.id, hive.state, hive.devices) == ("localhost", "unknown", None)


async def test_a_hive_is_meant_in_any_case_of_its_name(queen: Served) -> None:
    await queen.catalog.hives.add("localhost", "localhost", 8600)
    await queen.rules.load()
    label = b'{"set": [{"key": "rack", "value": "3"}]}'
    shown, labelled, added, removed = [
        await queen.ask(request("GET", "/v1/hives/LocalHost")),
        await queen.ask(request("POST", "/v1/hives/LOCALHOST/labels", label)),
        await queen.ask(request("POST", "/add-hive", b'{"host": "LocalHost"}')),
        await queen.ask(request("DELETE", "/v1/hives/LOCALHOST")),
    ]

    assert shown.json["id"] == labelled.json["id"] == "localhost"
    assert added.json["hive_id"] == removed.json["hive_id"] == "localhost"


async def test_jobs_are_listed_and_shown(queen: Served) -> None:
    for host in ("a", "b"):
        queen.jobs.open("add-hive", host).done(Done(None))
    listed = await queen.ask(request("GET", "/v1/jobs"))
    shown = await queen.ask(request("GET", f"/v1/jobs/{listed.json['jobs'][0]['id']}"))

    assert [job["hive_id"] for job in listed.json["jobs"]] == ["b", "a"]
    assert decode(JobView, shown.json).state == "done"
    assert shown.json == listed.json["jobs"][0]


async def test_the_document_lists_every_route(queen: Served) -> None:
    answer = await queen.ask(request("GET", "/v1/openapi.json"))

    told = {(method.upper(), path) for path, methods in answer.json["paths"].items() for method in methods}
    assert told == {(route.method, route.path) for route in QueenRoutes.ALL}


@pytest.mark.parametrize(
    ("asked", "status", "slug", "field"),
    [
        (post("/add-hive", {"host": "blade-7"}), 422, "unknown-host", "host"),
        (post("/add-hive", {"host": "localhost", "port": 65536}), 400, "bad-input", "port"),
        (post("/add-hive", {"host": "localhost", "port": 0}), 400, "bad-input", "port"),
        (post("/add-hive", {"port": 8600}), 400, "bad-input", "host"),
        (request("POST", "/add-hive", b"{host: localhost}"), 400, "bad-input", None),
        (request("POST", "/add-hive", Content_Length=str(10 * 2**20)), 413, "too-large", None),
        (post("/heartbeat", BEAT), 404, "unknown-hive", "hive_id"),
        (post("/heartbeat", BEAT | {"timestamp": "noon"}), 400, "bad-input", "timestamp"),
        (post("/heartbeat", {}), 400, "bad-input", "hive_id"),
        (request("GET", "/v1/hives/nobody"), 404, "unknown-hive", "hive_id"),
        (request("GET", "/v1/hives/a%20b"), 400, "bad-input", "hive_id"),
        (request("GET", f"/v1/hives/{'a' * 254}"), 400, "bad-input", "hive_id"),
        (request("DELETE", "/v1/hives/%00"), 400, "bad-input", "hive_id"),
        (request("DELETE", "/v1/hives/.."), 400, "bad-input", "hive_id"),
        (request("GET", f"/v1/jobs/{NO_JOB}"), 404, "unknown-job", None),
        (request("GET", "/v1/jobs/x"), 404, "unknown-job", "job_id"),
        (request("GET", f"/v1/jobs/{NO_JOB}/events"), 404, "unknown-job", None),
        (request("DELETE", f"/v1/jobs/{NO_JOB}"), 405, "no-such-method", None),
        (request("GET", "/v1/workers"), 404, "no-such-route", None),
    ],
    ids=lambda value: value[:48].decode() if isinstance(value, bytes) else None,
)
async def test_what_is_wrong_is_a_problem_and_nothing_is_written(
    queen: Served, asked: bytes, status: int, slug: str, field: str | None
) -> None:
    # Beats are root's and the hive's alone; others are told so before their beat is read.
    if b"/heartbeat" in asked and ME != 0:
        status, slug, field = 403, "not-permitted", None

    answer = await queen.ask(asked)
    assert await queen.catalog.hives.all() == []
    assert queen.jobs.all() == []
    assert queen.systemd.asked == []

    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    assert (answer.json["type"], answer.json.get("field")) == (f"urn:rbee:problem:{slug}", field)
    assert answer.json["detail"]


@pytest.mark.skipif(ME != 0, reason="only root may send a heartbeat here")
async def test_a_beat_of_a_hive_of_the_catalog_is_acknowledged(queen: Served) -> None:
    await queen.catalog.hives.add("localhost", "localhost", 8600)
    await queen.rules.load()
    answer = await queen.ask(post("/heartbeat", BEAT | {"state": "starting", "of": "tomorrow"}))

    assert (answer.status, answer.json) == (200, {"status": "ok", "interval_ms": 15000, "job_id": None})


# Stories


async def stream(queen: Served, asked: bytes) -> tuple[str, list[dict[str, str]]]:
    """Head and events of an answer, up to the end of its connection."""
    reader, writer = await asyncio.open_unix_connection(str(queen.path))
    writer.write(asked.replace(b"Host: localhost", b"Host: localhost\r\nConnection: close"))
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT)).decode()
    body = b""
    while size := int(await asyncio.wait_for(reader.readuntil(b"\r\n"), TIMEOUT), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    writer.close()
    await writer.wait_closed()
    blocks = body.decode().strip("\n").split("\n\n")
    return head, [dict(one.split(": ", 1) for one in block.split("\n")) for block in blocks]


def ended(jobs: Jobs, lines: int) -> Job:
    job = jobs.open("shutdown", None)
    stories = Stories(jobs)
    for number in range(lines):
        stories.narrate(SHUTTING_DOWN_HIVES, f"line {number + 1}", job_id=job.id)
    job.done(Done(None))
    return job


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


@pytest.mark.parametrize("last", ["-1", "x", "1.5", "", "9999999999", "1 2"])
async def test_a_last_event_id_that_is_no_number_is_refused(queen: Served, last: str) -> None:
    answer = await queen.ask(request("GET", f"/v1/jobs/{ended(queen.jobs, 1).id}/events", Last_Event_ID=last))

    assert (answer.status, answer.json["field"]) == (400, "Last-Event-ID")


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
