"""What is not as it should be: a problem document with the right status, and nothing written."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from rbee.errors import PROBLEM_PREFIX
from rbee.queen.api.admission import Admission
from rbee.wire.codec import decode
from rbee.wire.daemon import Problem
from rbee.wire.routes import HiveRoutes, LeaseRoutes, QueenRoutes
from tests.integration.house import Answer, House

JSON = {"Content-Type": "application/json"}
BEAT = {"hive_id": "localhost", "timestamp": "2026-01-31T12:00:00Z", "workers": [], "instance": "0" * 32}
NOBODY = "f" * 32


def is_problem(answer: Answer, status: int, slug: str, field: str | None = None) -> dict[str, Any]:
    """The RFC 9457 document of a refusal, checked."""
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = answer.json
    decode(Problem, problem)
    assert (problem["type"], problem["status"]) == (PROBLEM_PREFIX + slug, status)
    assert problem.get("field") == field, problem
    assert problem["detail"]
    return problem


async def nothing_came_of_it(house: House) -> None:
    assert house.row() is None
    assert house.systemd.asked == []
    assert (await house.ask(QueenRoutes.JOBS)).jobs == ()
    assert (await house.ask(QueenRoutes.HIVES)).hives == ()


async def test_a_host_that_is_not_known_is_refused(house: House) -> None:
    await house.wake_queen()

    for host in ("example.org", "127.0.0.1", "LOCALHOST.lan", "../etc", "a b", "ü", "\0", "-", "localhost\n"):
        answer = await house.post("/add-hive", {"host": host, "port": 8600})

        assert "sudo rbeectl join QUEEN:8500" in is_problem(answer, 422, "unknown-host", "host")["hint"]
    await nothing_came_of_it(house)


async def test_a_port_that_is_none_is_refused(house: House) -> None:
    await house.wake_queen()

    ports: list[object] = [0, -1, 65536, 10**30, "8600", 8600.0, True, [8600], {}, float("nan")]
    for port in ports:
        answer = await house.post("/add-hive", {"host": "localhost", "port": port})

        is_problem(answer, 400, "bad-input", "port")
    await nothing_came_of_it(house)


async def test_the_first_and_the_last_port_are_taken(house: House) -> None:
    await house.wake_queen()

    for port in (1, 65535):
        answer = await house.post("/add-hive", {"host": "localhost", "port": port})
        assert answer.status == 202
        await house.story(QueenRoutes.EVENTS, job_id=answer.json["job_id"]).end()
        assert (await house.view()).port == port


async def test_a_body_of_the_wrong_shape_is_refused_and_its_field_named(house: House) -> None:
    await house.wake_queen()

    cases: list[tuple[object, str | None]] = [
        ({}, "host"),
        ({"port": 8600}, "host"),
        ({"host": None}, "host"),
        ({"host": 1}, "host"),
        ({"host": ""}, "host"),
        ({"host": "h" * 254}, "host"),
        ({"host": ["localhost"]}, "host"),
        ({"host": "\ud800"}, "host"),
        ([], None),
        ("localhost", None),
        (None, None),
        (1, None),
    ]
    for body, field in cases:
        is_problem(await house.post("/add-hive", body), 400, "bad-input", field)
    await nothing_came_of_it(house)


async def test_json_that_is_none_is_refused(house: House) -> None:
    await house.wake_queen()

    for body in (
        b"",
        b"host=localhost&port=8600",
        b'{"host": "localhost"',
        b'{"host": "localhost"} more',
        b"\xff\xfe\x00",
        b'{"host": "loc\xe4lhost"}',
        b"[" * 100_000,
        b'{"host": "localhost", "port": ' + b"9" * 5000 + b"}",
    ):
        is_problem(await house.send("POST", "/add-hive", body, JSON), 400, "bad-input")
    await nothing_came_of_it(house)


async def test_a_body_of_ten_megabytes_is_refused(house: House) -> None:
    await house.wake_queen()

    for path in ("/add-hive", "/heartbeat"):
        is_problem(await house.send("POST", path, b" " * 10_000_000, JSON), 413, "too-large")
    await nothing_came_of_it(house)


async def test_a_body_of_ten_megabytes_that_does_not_say_so_is_refused(house: House) -> None:
    await house.wake_queen()

    def parts() -> Iterator[bytes]:
        """Without a length http.client sends it in chunks."""
        yield from itertools.repeat(b" " * 10_000, 1000)

    is_problem(await house.send("POST", "/add-hive", parts(), JSON), 413, "too-large")
    await nothing_came_of_it(house)


async def test_a_heartbeat_of_a_hive_that_nobody_added_is_refused(house: House) -> None:
    await house.wake_queen()

    answer = await house.post("/heartbeat", BEAT)

    assert is_problem(answer, 404, "unknown-hive", "hive_id")["hint"] == "rbeectl add-hive localhost"
    await nothing_came_of_it(house)


async def test_a_hive_that_nobody_added_says_once_how_to_add_it(house: House) -> None:
    await house.wake_queen()
    await house.systemd.administrator_starts()

    entry = await house.journal.says(event="not-in-catalog")

    assert "rbeectl add-hive localhost" in entry["MESSAGE"]
    assert "not in the hive catalog" in house.hive.notifier.statuses[-1]
    for _ in range(3):
        await house.hive.heart.beat()
    assert len(house.journal.of(event="not-in-catalog")) == 1
    await nothing_came_of_it(house)


async def test_a_heartbeat_of_the_wrong_shape_is_refused_and_changes_nothing(house: House) -> None:
    await house.added()
    before, view = house.row(), await house.view()

    line = {"speaker": "bee hive", "text": "t", "event": "detected", "at": BEAT["timestamp"]}
    changes: list[tuple[dict[str, Any], str]] = [
        ({"hive_id": "../../etc"}, "hive_id"),
        ({"hive_id": None}, "hive_id"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"timestamp": "2026-01-31T12:00:00"}, "timestamp"),
        ({"timestamp": "2026-02-30T12:00:00Z"}, "timestamp"),
        ({"timestamp": 1}, "timestamp"),
        ({"workers": None}, "workers"),
        ({"workers": [1]}, "workers[0]"),
        ({"workers": ["w"] * 10_001}, "workers"),
        ({"instance": "me"}, "instance"),
        ({"state": "dead"}, "state"),
        ({"job_id": "0"}, "job_id"),
        ({"lines": [line] * 65}, "lines"),
        ({"lines": [{}]}, "lines[0].speaker"),
        ({"lines": [line, {**line, "text": "t" * 2001}]}, "lines[1].text"),
        ({"lines": [{**line, "speaker": "me"}]}, "lines[0].speaker"),
    ]
    for change, field in changes:
        is_problem(await house.post("/heartbeat", {**BEAT, **change}), 400, "bad-input", field)
    assert house.row() == before
    assert await house.view() == view


async def test_what_a_newer_peer_says_besides_is_passed_over(house: House) -> None:
    await house.wake_queen()

    answer = await house.post("/add-hive", {"host": "localhost", "colour": "yellow"})

    assert answer.status == 202
    assert answer.json["hive_id"] == "localhost"
    assert (await house.story(QueenRoutes.EVENTS, job_id=answer.json["job_id"]).end()).kind == "done"


async def test_a_job_that_there_is_not_is_refused(house: House) -> None:
    await house.wake_queen()

    for path in (f"/v1/jobs/{NOBODY}", f"/v1/jobs/{NOBODY}/events"):
        is_problem(await house.send("GET", path), 404, "unknown-job")
    for job_id in ("1", "F" * 32, "%00", "f" * 33):
        is_problem(await house.send("GET", f"/v1/jobs/{job_id}"), 404, "unknown-job", "job_id")


async def test_a_hive_that_there_is_not_is_refused(house: House) -> None:
    await house.wake_queen()

    is_problem(await house.send("GET", "/v1/hives/nowhere"), 404, "unknown-hive", "hive_id")


async def test_what_cannot_be_a_hives_id_is_refused(house: House) -> None:
    await house.wake_queen()

    for hive_id in ("%20", "..%2e", "-x", "h" * 254, "%ff"):
        for method in ("GET", "DELETE"):
            answer = await house.send(method, f"/v1/hives/{hive_id}")
            is_problem(answer, 400, "bad-input", "hive_id")
    await nothing_came_of_it(house)


async def test_a_wrong_method_is_refused_and_the_right_ones_named(house: House) -> None:
    await house.wake_queen()

    for method, path, allowed in (
        ("GET", "/add-hive", ("POST",)),
        ("GET", "/heartbeat", ("POST",)),
        ("GET", "/shutdown", ("POST",)),
        ("PUT", "/add-hive", ("POST",)),
        ("DELETE", "/v1/hives", ("GET",)),
        ("POST", "/v1/hives/localhost", ("GET", "DELETE")),
        ("POST", "/health", ("GET",)),
        ("OPTIONS", "/v1/jobs", ("GET",)),
        ("PATCH", f"/v1/jobs/{NOBODY}/events", ("GET",)),
    ):
        problem = is_problem(await house.send(method, path), 405, "no-such-method")
        assert all(name in problem["hint"] for name in allowed)
    await nothing_came_of_it(house)


async def test_a_wrong_method_is_answered_with_the_header_that_http_asks_for(house: House) -> None:
    await house.wake_queen()

    answer = await house.send("POST", "/v1/hives/localhost")

    # RFC 9110, 15.5.6: a 405 must have Allow.
    assert set(answer.headers.get("allow", "").replace(",", " ").split()) >= {"GET", "DELETE"}


async def test_a_path_that_leads_nowhere_is_refused(house: House) -> None:
    await house.wake_queen()

    for path in ("/", "/v1", "/v2/hives", "/v1/hives/a/b", "/%2e%2e/etc/passwd"):
        is_problem(await house.send("GET", path), 404, "no-such-route")


async def test_a_path_with_a_slash_too_many_leads_nowhere(house: House) -> None:
    await house.wake_queen()

    is_problem(await house.send("POST", "/add-hive/", b"{}"), 404, "no-such-route")


async def test_the_queen_serves_on_after_all_of_it(house: House) -> None:
    await house.wake_queen()
    for body in (b"{", b"[" * 100_000, b" " * 1_000_000, json.dumps({"host": "x"}).encode()):
        assert (await house.send("POST", "/add-hive", body, JSON)).status >= 400

    assert (await house.add().end()).kind == "done"


async def test_the_hive_refuses_what_cannot_be_a_jobs_id(house: House) -> None:
    await house.added()

    for text in ("1", "", "F" * 32, "x" * 32):
        headers = {"RBEE-Job-ID": text}
        answer = await house.send("GET", HiveRoutes.DEVICES.path, headers=headers, to=house.hive_path)
        is_problem(answer, 400, "bad-input", "RBEE-Job-ID")


async def test_the_hives_user_may_do_nothing_but_beat(house: House) -> None:
    house.admission = Admission(os.getuid())
    await house.wake_queen()

    for route in (*QueenRoutes.ALL, *LeaseRoutes.ALL):
        path = route.url(hive_id="localhost", job_id=NOBODY, token_id="0" * 8, model="bee", key="alice")
        answer = await house.send(route.method, path, json.dumps(BEAT).encode() if route.body else None)
        if route is QueenRoutes.HEARTBEAT:
            is_problem(answer, 404, "unknown-hive", "hive_id")
        else:
            is_problem(answer, 403, "not-permitted")
    assert house.row() is None


@pytest.mark.skipif(os.getuid() == 0, reason="root may send heartbeats")
async def test_nobody_but_the_hives_user_may_beat(house: House) -> None:
    house.admission = Admission(os.getuid() + 1)
    await house.wake_queen()

    is_problem(await house.post("/heartbeat", BEAT), 403, "not-permitted")
