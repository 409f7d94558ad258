"""The OpenAPI documents say what the two really serve."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from rbee.wire.routes import HiveRoutes, LeaseRoutes, QueenRoutes, Route
from tests.integration.house import Answer, House, until

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


async def document_of(house: House, path: Path) -> dict[str, Any]:
    answer = await house.send("GET", "/v1/openapi.json", to=path)
    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    document: dict[str, Any] = answer.json
    assert document["openapi"].startswith("3.1.")
    return document


def operations(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {
        (method.upper(), path)
        for path, item in document["paths"].items()
        for method in item
        if method in METHODS
    }


def check(document: dict[str, Any], route: Route, answer: Answer) -> None:
    """The answer is one that the document has for the route."""
    responses = document["paths"][route.path][route.method.lower()]["responses"]
    described = responses.get(str(answer.status), responses["default"])
    kind = answer.headers["content-type"].split(";")[0]
    schema = {**described["content"][kind]["schema"], "components": document["components"]}
    value = answer.json if kind.endswith("json") else answer.content.decode(errors="replace")
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(value)


async def test_both_documents_list_exactly_the_routes(house: House) -> None:
    await house.added()

    queen = await document_of(house, house.queen_path)
    hive = await document_of(house, house.hive_path)

    assert operations(queen) == {(route.method, route.path) for route in (*QueenRoutes.ALL, *LeaseRoutes.ALL)}
    assert operations(hive) == {(route.method, route.path) for route in HiveRoutes.ALL}


async def test_the_schemas_are_schemas_and_every_reference_leads_somewhere(house: House) -> None:
    await house.added()

    for path in (house.queen_path, house.hive_path):
        document = await document_of(house, path)
        shapes = document["components"]["schemas"]
        for schema in shapes.values():
            Draft202012Validator.check_schema(schema)
        assert all(name in shapes for name in references(document))
        identifiers = [item["operationId"] for at in document["paths"].values() for item in at.values()]
        assert len(identifiers) == len(set(identifiers))


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        found = {value["$ref"].removeprefix("#/components/schemas/")} if "$ref" in value else set()
        return found.union(*map(references, value.values()))
    if isinstance(value, list):
        return set().union(*map(references, value))
    return set()


async def test_every_get_of_the_queen_answers_as_its_schema_says(house: House) -> None:
    await house.wake_queen()
    story = house.add()
    await story.end()
    head = {"format": "gguf"}
    model = json.dumps({"name": "bee", "path": "/srv/bee.gguf", "head": head, "bytes": 793_000}).encode()
    await house.send("POST", "/v1/models", model, {"Accept": "text/event-stream"})
    document = await document_of(house, house.queen_path)
    every = (*QueenRoutes.ALL, LeaseRoutes.OPEN_MODELS)
    routes = [route for route in every if route.method == "GET" and not route.is_endless]
    assert len(routes) == 24

    for route in routes:
        answer = await house.send("GET", route.url(hive_id="localhost", job_id=story.job_id, model="bee"))
        assert answer.status == route.success, (route.name, answer.content)
        if route.answer is bytes:
            assert answer.headers["content-type"].partition(";")[0] == route.media_type
            continue
        check(document, route, answer)


async def test_the_feed_answers_as_its_schema_says(house: House) -> None:
    queen = await house.added()
    document = await document_of(house, house.queen_path)

    asking = asyncio.create_task(house.send("GET", "/v1/events?since_ms=0"))
    await until(lambda: queen.feed.limits.taken == 1)
    await queen.stop()
    answer = await asking

    described = document["paths"]["/v1/events"]["get"]
    assert {(one["in"], one["name"]) for one in described["parameters"]} == {
        ("header", "Last-Event-ID"),
        ("query", "since_ms"),
    }
    assert answer.status == 200
    check(document, QueenRoutes.FEED, answer)
    shape = {"$ref": "#/components/schemas/FeedEvent", "components": document["components"]}
    blocks = [block for block in answer.content.decode().split("\n\n") if "data: " in block]
    for block in blocks:
        Draft202012Validator(shape).validate(json.loads(block.split("data: ")[1]))
    assert len(blocks) > 10


async def test_each_query_that_is_described_is_read(house: House) -> None:
    await house.added()
    document = await document_of(house, house.queen_path)
    described = set()

    for route in QueenRoutes.ALL:
        for name, _kind in route.query:
            described.add((route.name, name))
            for value in ("-", "", "-1", "\0", "\u0663", "9" * 300):
                path = route.url(**dict.fromkeys(re.findall(r"{(\w+)}", route.path), "localhost"))
                answer = await house.send(route.method, f"{path}?{name}={quote(value)}")
                assert (answer.status, answer.json["field"]) == (400, name), value
                assert answer.json["detail"].startswith(name)
                check(document, route, answer)
    assert described == {
        ("workers", "model"),
        ("engines", "hive"),
        ("hives", "limit"),
        ("hives", "after"),
        ("hives", "selector"),
        ("feed", "since_ms"),
        ("last_events", "limit"),
        ("last_events", "hive"),
        ("remove_hive", "force"),
        ("audit", "limit"),
        ("audit", "hive"),
    }


async def test_every_get_of_the_hive_answers_as_its_schema_says(house: House) -> None:
    await house.added()
    document = await document_of(house, house.hive_path)
    routes = [route for route in HiveRoutes.ALL if route.method == "GET"]
    assert len(routes) == 10

    for route in routes:
        url = route.url(worker_id="nobody-1", fetch_id="nothing")
        answer = await house.send("GET", url, to=house.hive_path)
        is_of_one = route.path != url
        expected = 400 if route is HiveRoutes.CONNECT else 404 if is_of_one else route.success
        assert answer.status == expected, (route.name, answer.content)
        assert is_of_one == (answer.status in route.problems)
        check(document, route, answer)


@pytest.mark.parametrize("state", ["pending", "offline"])
async def test_a_hive_that_is_not_online_answers_as_its_schema_says(house: House, state: str) -> None:
    await house.wake_queen()
    if state == "pending":
        house.systemd.may_start.clear()
        await house.add().to("waking up")
    else:
        house.systemd.start_fails = True
        await house.add().end()
    await house.is_in(state)
    document = await document_of(house, house.queen_path)

    for route in (QueenRoutes.HIVE, QueenRoutes.HIVES, QueenRoutes.JOBS):
        check(document, route, await house.send("GET", route.url(hive_id="localhost")))


async def test_what_makes_a_job_answers_as_its_schema_says(house: House) -> None:
    await house.wake_queen()
    document = await document_of(house, house.queen_path)

    added = await house.post("/add-hive", {"host": "localhost"})
    assert added.status == QueenRoutes.ADD_HIVE.success
    check(document, QueenRoutes.ADD_HIVE, added)
    removed = await house.send("DELETE", "/v1/hives/localhost")
    assert removed.status == QueenRoutes.REMOVE_HIVE.success
    check(document, QueenRoutes.REMOVE_HIVE, removed)
    shutdown = await house.send("POST", "/shutdown")
    assert shutdown.status == QueenRoutes.SHUTDOWN.success
    check(document, QueenRoutes.SHUTDOWN, shutdown)


async def test_what_a_fleet_needs_of_the_queen_answers_as_its_schema_says(house: House) -> None:
    await house.added()
    document = await document_of(house, house.queen_path)

    async def ask(route: Route, body: Any = None, **values: str) -> Any:
        content = None if body is None else json.dumps(body).encode()
        answer = await house.send(route.method, route.url(**values), content)
        assert answer.status == route.success, answer.content
        check(document, route, answer)
        return answer.json

    assert not (await ask(QueenRoutes.TCP))["is_open"]
    opened = await ask(QueenRoutes.SET_TCP, {"is_open": True})
    assert (opened["is_open"], opened["listens"]) == (True, [])
    made = await ask(QueenRoutes.CREATE_TOKEN, {"ttl_s": 60, "uses": 2, "hive": "gpu1"})
    assert made["text"].endswith(opened["fingerprint"])
    assert (await ask(QueenRoutes.TOKENS))["tokens"] == [made["token"]]
    revoked = await ask(QueenRoutes.REVOKE_TOKEN, token_id=made["token"]["id"])
    assert revoked["is_revoked"]
    labels = {"set": [{"key": "rack", "value": "3"}], "remove": ["spare"]}
    assert (await ask(QueenRoutes.SET_LABELS, labels, hive_id="localhost"))["labels"] == labels["set"]
    cordoned = await ask(QueenRoutes.SET_CORDON, {"reason": "a fan is loud"}, hive_id="localhost")
    assert cordoned["cordoned"] == "a fan is loud"
    assert len((await ask(QueenRoutes.AUDIT))["entries"]) >= 4
    check(document, QueenRoutes.HIVES, await house.send("GET", QueenRoutes.HIVES.path))


async def test_each_path_that_is_described_is_read(house: House) -> None:
    await house.added()
    document = await document_of(house, house.queen_path)
    bodies = {QueenRoutes.SET_LABELS: b"{}", QueenRoutes.SET_CORDON: b'{"reason": null}'}
    described = set()

    for route in QueenRoutes.ALL:
        for name in re.findall(r"{(\w+)}", route.path):
            described.add(name)
            for value in ("-", "x" * 254, "%00", "a%0Ab", "%ED%A0%80"):
                answer = await house.send(route.method, route.url(**{name: value}), bodies.get(route))
                # To who looks for a job, one that there cannot be is one that there is not.
                assert answer.status == (404 if name == "job_id" else 400), (route.name, value)
                assert answer.status in route.problems
                assert answer.json["field"] == name
                check(document, route, answer)
    assert described == {"hive_id", "job_id", "token_id", "model", "key"}


async def test_a_story_told_at_once_answers_as_its_schema_says(house: House) -> None:
    await house.wake_queen()
    document = await document_of(house, house.queen_path)
    accept = {"Accept": "text/event-stream"}

    added = await house.send("POST", "/add-hive", b'{"host": "localhost"}', accept)
    removed = await house.send("DELETE", "/v1/hives/localhost", headers=accept)

    for route, answer in ((QueenRoutes.ADD_HIVE, added), (QueenRoutes.REMOVE_HIVE, removed)):
        described = document["paths"][route.path][route.method.lower()]["responses"]["200"]
        assert answer.status == 200
        assert list(described["content"]) == [answer.headers["content-type"].split(";")[0]]
        check(document, route, answer)


async def test_each_header_that_is_described_is_read(house: House) -> None:
    await house.added()
    nobody = "f" * 32
    described = set()

    for path, table in ((house.queen_path, QueenRoutes), (house.hive_path, HiveRoutes)):
        for route in table.ALL:
            for name, _kind in route.headers:
                described.add(name)
                job = (await house.ask(QueenRoutes.JOBS)).jobs[0].id
                url = route.url(hive_id=nobody, job_id=job)
                answer = await house.send(route.method, url, headers={name: "none"}, to=path)
                assert (answer.status, answer.json.get("field")) == (400, name), (route.name, answer.content)
                assert answer.json["detail"].startswith(name)
                check(await document_of(house, path), route, answer)
    assert described == {"Last-Event-ID", "RBEE-Job-ID"}


async def test_a_refusal_answers_as_its_schema_says(house: House) -> None:
    await house.wake_queen()
    document = await document_of(house, house.queen_path)

    for route, answer in (
        (QueenRoutes.ADD_HIVE, await house.post("/add-hive", {"host": "localhost", "port": 0})),
        (QueenRoutes.ADD_HIVE, await house.post("/add-hive", {"host": "elsewhere"})),
        (QueenRoutes.HEARTBEAT, await house.post("/heartbeat", {})),
        (QueenRoutes.HIVE, await house.send("GET", "/v1/hives/nowhere")),
        (QueenRoutes.HIVE, await house.send("GET", "/v1/hives/-")),
        (QueenRoutes.JOB, await house.send("GET", "/v1/jobs/none")),
        (QueenRoutes.CREATE_TOKEN, await house.post("/v1/tokens", {})),  # who is not open makes none
        (QueenRoutes.CREATE_TOKEN, await house.post("/v1/tokens", {"uses": 0})),
        (QueenRoutes.REVOKE_TOKEN, await house.send("DELETE", f"/v1/tokens/{'0' * 8}")),
        (QueenRoutes.REVOKE_TOKEN, await house.send("DELETE", "/v1/tokens/-")),
        (QueenRoutes.SET_TCP, await house.post("/v1/tcp", {"is_open": "yes"})),
        (QueenRoutes.SET_LABELS, await house.post("/v1/hives/nowhere/labels", {})),
        (QueenRoutes.SET_LABELS, await house.post("/v1/hives/localhost/labels", {"remove": ["-"]})),
        (QueenRoutes.SET_CORDON, await house.post("/v1/hives/nowhere/cordon", {"reason": None})),
        (QueenRoutes.SET_CORDON, await house.post("/v1/hives/localhost/cordon", {})),
        (QueenRoutes.AUDIT, await house.send("GET", "/v1/audit?limit=1001")),
    ):
        assert answer.status >= 400
        assert answer.status in route.problems
        check(document, route, answer)


async def test_what_the_document_refuses_the_queen_refuses_too(house: House) -> None:
    await house.wake_queen()
    document = await document_of(house, house.queen_path)
    content = document["paths"]["/add-hive"]["post"]["requestBody"]["content"]["application/json"]
    validator = Draft202012Validator({**content["schema"], "components": document["components"]})

    bodies: list[Any] = [
        {},
        [],
        {"host": ""},
        {"host": "localhost", "port": 0},
        {"host": "localhost", "port": "1"},
    ]
    for body in bodies:
        assert not validator.is_valid(body)
        assert (await house.post("/add-hive", body)).status == 400
    assert validator.is_valid({"host": "localhost"})
    assert validator.is_valid({"host": "localhost", "port": 8600})
