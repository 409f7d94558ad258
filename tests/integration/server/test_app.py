"""Who asks, what is answered, and what is refused and how."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import pytest
from starlette.requests import Request

from rbee.errors import CatalogFailed, NotPermitted
from rbee.server.peer import Peer
from rbee.systemd.daemon import Notifier
from rbee.wire.daemon import Health
from rbee.wire.routes import HiveRoutes, QueenRoutes, Route
from tests.integration.server.example import JOB, PROBLEM, app, ask, health
from tests.integration.unix_http import TIMEOUT, post, read_answer, request, served

# Who asks, and what is answered


async def test_an_answer_is_the_shape_as_json(tmp_path: Path, silent_notifier: Notifier) -> None:
    (answer,) = await ask(tmp_path, silent_notifier, post("/add-hive", {"host": "größe", "port": 7}))

    assert (answer.status, answer.headers["content-type"]) == (202, "application/json")
    assert answer.json == {"hive_id": "größe", "job_id": JOB, "events": "/at/7"}


async def test_who_is_not_admitted_is_refused_before_the_handler_runs(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    asked: list[tuple[int, Route]] = []

    def admit(peer: Peer, route: Route) -> None:
        asked.append((peer.uid, route))
        if route is QueenRoutes.ADD_HIVE:
            raise NotPermitted("not you", hint="ask root")

    refused, taken = await ask(
        tmp_path, silent_notifier, post("/add-hive", "not even JSON"), request("GET", "/health"), admit=admit
    )

    assert (refused.status, refused.headers["content-type"]) == (403, PROBLEM)
    assert (refused.json["type"], refused.json["hint"]) == ("urn:rbee:problem:not-permitted", "ask root")
    assert taken.status == 200
    assert asked == [(os.geteuid(), QueenRoutes.ADD_HIVE), (os.geteuid(), QueenRoutes.HEALTH)]


async def test_the_document_is_made_from_the_routes_that_are_served(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    (answer,) = await ask(tmp_path, silent_notifier, request("GET", "/v1/openapi.json"))

    assert set(answer.json["paths"]) == {"/health", "/add-hive", "/v1/openapi.json"}
    assert answer.json["info"]["title"] == "a test"


async def test_a_connection_is_kept_between_requests(tmp_path: Path, silent_notifier: Notifier) -> None:
    async with served(app(), tmp_path / "s", silent_notifier):
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
        statuses = []
        for one in (
            request("GET", "/health"),
            request("GET", "/nowhere"),
            post("/add-hive", {"host": "a"}),
        ):
            writer.write(one)
            statuses.append((await asyncio.wait_for(read_answer(reader), TIMEOUT)).status)
        writer.close()
        await writer.wait_closed()
        assert statuses == [200, 404, 202]


# What is refused


@pytest.mark.parametrize(
    ("asked", "status", "slug", "detail"),
    [
        (request("GET", "/nowhere"), 404, "no-such-route", "there is nothing at /nowhere"),
        (request("GET", "/"), 404, "no-such-route", "there is nothing at /"),
        (request("GET", "/health/"), 404, "no-such-route", "there is nothing at /health/"),
        (request("GET", "//health"), 404, "no-such-route", "there is nothing at"),
        (request("POST", "/health", b""), 405, "no-such-method", "POST is not a method of /health"),
        (request("DELETE", "/add-hive"), 405, "no-such-method", "DELETE is not a method of /add-hive"),
        (request("GET", "/add-hive"), 405, "no-such-method", "GET is not a method of /add-hive"),
        (request("PROPFIND", "/health"), 405, "no-such-method", "PROPFIND is not a method of /health"),
        (request("POST", "/add-hive", b""), 400, "bad-input", "the body is not JSON"),
        (request("POST", "/add-hive", b"{"), 400, "bad-input", "the body is not JSON"),
        (request("POST", "/add-hive", b"\xff\xfe{}"), 400, "bad-input", "the body is not JSON"),
        (request("POST", "/add-hive", b"[" * 100_000), 400, "bad-input", "the body is not JSON"),
        (request("POST", "/add-hive", b'{"port": ' + b"9" * 9000 + b"}"), 400, "bad-input", "the body"),
        (request("POST", "/add-hive", b"[]"), 400, "bad-input", "the body must be a JSON object"),
        (request("POST", "/add-hive", b'{"host": "\\ud800"}'), 400, "bad-input", "host must be valid"),
        (post("/add-hive", {"host": "a", "port": 0}), 400, "bad-input", "port must be from 1 to 65535"),
        (post("/add-hive", {}), 400, "bad-input", "host is missing"),
    ],
    ids=lambda value: value[:40].decode("latin-1") if isinstance(value, bytes) else None,
)  # fmt: skip
async def test_what_is_wrong_is_answered_with_a_problem_document(
    tmp_path: Path, silent_notifier: Notifier, asked: bytes, status: int, slug: str, detail: str
) -> None:
    (answer,) = await ask(tmp_path, silent_notifier, asked)

    assert (answer.status, answer.headers["content-type"]) == (status, PROBLEM)
    assert answer.json["type"] == f"urn:rbee:problem:{slug}"
    assert answer.json["status"] == status
    assert answer.json["detail"].startswith(detail)


async def test_a_wrong_method_is_answered_with_those_there_are(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    (answer,) = await ask(tmp_path, silent_notifier, request("GET", "/add-hive"))

    assert answer.json["hint"] == "It has POST."
    assert answer.headers.get("allow") == "POST"  # RFC 9110, 15.5.6: MUST


@pytest.mark.parametrize(
    ("path", "status"), [("/health", 200), ("/add-hive", 405), (f"/v1/jobs/{JOB}/events", 405)]
)
async def test_head_is_get_without_a_body_where_the_answer_has_an_end(
    tmp_path: Path, silent_notifier: Notifier, path: str, status: int
) -> None:
    told = []
    async with served(app({QueenRoutes.EVENTS: health}), tmp_path / "s", silent_notifier):
        for method in ("HEAD", "GET"):
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
            writer.write(request(method, path, Connection="close"))
            told.append(await asyncio.wait_for(reader.read(), TIMEOUT))
            writer.close()
            await writer.wait_closed()
    by_head, by_get = told
    head, _, body = by_head.partition(b"\r\n\r\n")
    assert (int(head.split()[1]), body) == (status, b"")
    if status == 200:
        assert head == by_get.partition(b"\r\n\r\n")[0]
        assert by_get.partition(b"\r\n\r\n")[2]


async def test_an_error_of_ours_has_its_own_status_and_hint(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    async def fail(_request: Request) -> Health:
        raise CatalogFailed("the disk is full", hint="Make room.")

    (answer,) = await ask(
        tmp_path, silent_notifier, request("GET", "/health"), handlers={QueenRoutes.HEALTH: fail}
    )

    assert (answer.status, answer.headers["content-type"]) == (500, PROBLEM)
    assert (answer.json["detail"], answer.json["hint"]) == ("the disk is full", "Make room.")


async def test_an_unforeseen_error_is_told_as_such_and_keeps_its_traceback_in_the_journal(
    tmp_path: Path, silent_notifier: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail(_request: Request) -> Health:
        raise ZeroDivisionError("a secret")

    (answer,) = await ask(
        tmp_path, silent_notifier, request("GET", "/health"), handlers={QueenRoutes.HEALTH: fail}
    )

    assert (answer.status, answer.headers["content-type"]) == (500, PROBLEM)
    assert answer.json["detail"] == "internal error"
    assert b"secret" not in answer.content
    ours, traced = caplog.records
    assert ours.getMessage() == "GET /health failed: internal error"
    assert traced.exc_info
    assert traced.exc_info[0] is ZeroDivisionError


async def test_the_hive_s_routes_are_served_the_same_way(tmp_path: Path, silent_notifier: Notifier) -> None:
    async def stop(_request: Request) -> Health:
        return Health("ok", "1")

    (answer,) = await ask(
        tmp_path, silent_notifier, request("POST", "/shutdown", b""), handlers={HiveRoutes.SHUTDOWN: stop}
    )

    assert answer.status == 202


async def test_nothing_is_logged_for_requests_that_go_well(
    tmp_path: Path, silent_notifier: Notifier, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        await ask(tmp_path, silent_notifier, request("GET", "/health"), request("GET", "/nowhere"))

    assert caplog.records == []
