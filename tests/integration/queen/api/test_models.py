"""The routes for models."""

from __future__ import annotations

from typing import Any

import pytest

from rbee.wire.codec import decode
from rbee.wire.jobs import JobStarted
from rbee.wire.models import Models, ModelView
from tests.integration.queen.served_queen import ME, Served
from tests.integration.unix_http import post, request
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)

BEE: dict[str, Any] = {"name": "bee", "path": "/m/bee.gguf", "head": {"format": "gguf"}, "bytes": 5}


async def add(queen: Served, model: dict[str, Any]) -> JobStarted:
    answer = await queen.ask(post("/v1/models", model))
    assert answer.status == 202, answer.json
    started = decode(JobStarted, answer.json)
    await until(lambda: queen.jobs.job(started.job_id).state != "running")
    return started


async def test_models_are_listed_by_name_and_shown(queen: Served) -> None:
    for name in ("wasp", "bee"):
        await add(queen, {**BEE, "name": name})

    listed = decode(Models, (await queen.ask(request("GET", "/v1/models"))).json)
    shown = decode(ModelView, (await queen.ask(request("GET", "/v1/models/bee"))).json)

    assert [one.name for one in listed.models] == ["bee", "wasp"]
    assert shown == listed.models[0]


async def test_a_model_is_served_in_the_name_of_who_asks(queen: Served) -> None:
    await add(queen, BEE)
    served = await queen.ask(post("/v1/models/bee/serve", {"context": 512, "is_pinned": True}))

    view = decode(ModelView, served.json)
    assert (view.is_served, view.context, view.is_pinned, view.idle_s) == (True, 512, True, 300)
    assert {entry.actor_uid for entry in await queen.catalog.audit.last(9, None)} == {ME}


async def test_a_model_is_removed_by_a_job(queen: Served) -> None:
    await add(queen, BEE)
    answer = await queen.ask(request("DELETE", "/v1/models/bee"))
    started = decode(JobStarted, answer.json)
    await until(lambda: queen.jobs.job(started.job_id).state != "running")

    assert (answer.status, started.hive_id) == (202, "localhost")
    assert queen.jobs.job(started.job_id).view().kind == "remove-model"
    assert (await queen.ask(request("GET", "/v1/models/bee"))).status == 404


@pytest.mark.parametrize(
    ("asked", "status", "slug", "field"),
    [
        (request("GET", "/v1/models/wasp"), 404, "unknown-model", "model"),
        (request("GET", "/v1/models/-"), 400, "bad-input", "model"),
        (post("/v1/models/wasp/serve", {}), 404, "unknown-model", "model"),
        (post("/v1/models/bee/serve", {"idle_s": 0}), 400, "bad-input", "idle_s"),
        (post("/v1/models", {**BEE, "path": "/m/other"}), 409, "model-exists", "name"),
        (post("/v1/models", {**BEE, "path": "other"}), 400, "bad-input", "path"),
        (post("/v1/models", {**BEE, "name": "w", "hive": "gpu1"}), 404, "unknown-hive", "hive_id"),
        (post("/v1/models", {"name": "w", "url": "http://h/a"}), 400, "bad-input", "sha256"),
    ],
)
async def test_what_cannot_be_done_is_refused(
    queen: Served, asked: bytes, status: int, slug: str, field: str
) -> None:
    await add(queen, BEE)
    answer = await queen.ask(asked)

    assert (answer.status, answer.json["type"]) == (status, f"urn:rbee:problem:{slug}")
    assert answer.json.get("field") == field
