"""What is read from a request: who sends it, and its path and headers, which may be wrong."""

from __future__ import annotations

import os

import pytest

from tests.integration.queen.served_queen import BEAT, ME, NO_JOB, Served, ended
from tests.integration.unix_http import post, request

pytestmark = pytest.mark.deadline(10)


async def test_who_asked_is_known_by_the_kernel_s_word(queen: Served) -> None:
    asked: list[dict[str, str]] = []
    shut_down = queen.work.shut_down
    queen.work.shut_down = lambda actor: (asked.append(actor), shut_down(actor))[1]  # type: ignore[method-assign]
    await queen.ask(request("POST", "/shutdown", b"", Actor_Uid="0"))
    assert asked[0] == {"actor_uid": str(ME), "actor_pid": str(os.getpid())}


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
        (request("GET", "/v1/nothing"), 404, "no-such-route", None),
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


@pytest.mark.parametrize("last", ["-1", "x", "1.5", "", "9999999999", "1 2"])
async def test_a_last_event_id_that_is_no_number_is_refused(queen: Served, last: str) -> None:
    answer = await queen.ask(request("GET", f"/v1/jobs/{ended(queen.jobs, 1).id}/events", Last_Event_ID=last))

    assert (answer.status, answer.json["field"]) == (400, "Last-Event-ID")
