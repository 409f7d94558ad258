"""The routes for hives."""

from __future__ import annotations

import pytest

from rbee.scope import TARGET
from rbee.wire.codec import decode
from rbee.wire.hives import Hives
from rbee.wire.jobs import JobStarted
from tests.integration.queen.served_queen import BEAT, ME, Served
from tests.integration.unix_http import post, request
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)


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


async def test_hives_are_listed_and_shown(queen: Served) -> None:
    await queen.catalog.hives.add("localhost", "localhost", 8600)
    await queen.rules.load()
    listed, shown = [await queen.ask(request("GET", path)) for path in ("/v1/hives", "/v1/hives/localhost")]

    (hive,) = decode(Hives, listed.json).hives
    assert listed.json["hives"] == [shown.json]
    assert (hive.id, hive.state, hive.devices) == ("localhost", "unknown", None)


async def test_hives_are_listed_in_pages(queen: Served) -> None:
    for name in ("a", "b", "localhost"):
        await queen.catalog.hives.add(name, name, 8600)
    await queen.rules.load()
    first = (await queen.ask(request("GET", "/v1/hives?limit=2"))).json
    last = (await queen.ask(request("GET", f"/v1/hives?limit=2&after={first['next']}"))).json
    none = (await queen.ask(request("GET", "/v1/hives?selector=rack%3D3,!spare"))).json

    assert ([hive["id"] for hive in first["hives"]], first["next"]) == (["a", "b"], "b")
    assert ([hive["id"] for hive in last["hives"]], last["next"]) == (["localhost"], None)
    assert none == {"hives": [], "next": None}


@pytest.mark.parametrize(
    ("query", "field", "complaint"),
    [
        ("limit=0", "limit", "limit must be from 1 to 1000"),
        ("limit=1001", "limit", "limit must be from 1 to 1000"),
        ("limit=many", "limit", "limit must be a whole number"),
        ("limit=", "limit", "limit must be a whole number"),
        ("after=", "after", "after must have 1 to 285 characters, and has 0"),
        ("after=a%20b", "after", "after must be a hive's name, or the `next` of the previous page"),
        ("selector=", "selector", "selector must have 1 to 4096 characters, and has 0"),
        ("selector=%3D3", "selector", "selector takes KEY=VALUE, KEY!=VALUE, KEY or !KEY, separated by"),
    ],
)
async def test_what_cannot_be_a_page_is_refused_and_named(
    queen: Served, query: str, field: str, complaint: str
) -> None:
    answer = await queen.ask(request("GET", f"/v1/hives?{query}"))

    assert (answer.status, answer.json["field"]) == (400, field)
    assert answer.json["detail"].startswith(complaint)


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


@pytest.mark.skipif(ME != 0, reason="only root may send a heartbeat here")
async def test_a_beat_of_a_hive_of_the_catalog_is_acknowledged(queen: Served) -> None:
    await queen.catalog.hives.add("localhost", "localhost", 8600)
    await queen.rules.load()
    answer = await queen.ask(post("/heartbeat", BEAT | {"state": "starting", "of": "tomorrow"}))

    assert (answer.status, answer.json) == (200, {"status": "ok", "interval_ms": 15000, "job_id": None})
