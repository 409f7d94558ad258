"""The routes for workers, engines and memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rbee.wire.codec import decode
from rbee.wire.routes import QueenRoutes, Route
from tests.integration.queen.serving.serving_hive import a_queen
from tests.integration.unix_http import raw, request
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(20)


@pytest.mark.parametrize(
    ("route", "values"),
    [
        (QueenRoutes.WORKERS, {}),
        (QueenRoutes.PLACEMENT, {"model": "bee"}),
        (QueenRoutes.ENGINES, {}),
        (QueenRoutes.MEMORY, {"hive_id": "LOCALHOST"}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
async def test_each_answers_in_its_shape(tmp_path: Path, route: Route, values: dict[str, str]) -> None:
    async with a_queen(tmp_path) as played:
        answer = await raw(played.path, request("GET", route.url(**values)))

        assert answer.status == 200
        assert route.answer is not None
        decode(route.answer, answer.json)


async def test_workers_are_those_of_one_model_if_that_is_asked_for(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.model("wasp")
        answer = await raw(played.path, request("GET", "/v1/workers?model=wasp"))

        assert [worker["model"] for worker in answer.json["workers"]] == ["wasp"]


async def test_a_model_is_served_no_more_by_a_job(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        answer = await raw(played.path, request("DELETE", "/v1/models/bee/serve"))
        job = played.queen.jobs.job(answer.json["job_id"])
        await until(lambda: job.state == "done")

        assert answer.status == 202
        assert job.kind == "unserve"
        assert not played.queen.library.models.model("bee").row.is_served


async def test_a_model_that_is_not_there_has_no_placement(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        answer = await raw(played.path, request("GET", "/v1/models/ghost/placement"))

        assert (answer.status, json.loads(answer.content)["type"]) == (404, "urn:rbee:problem:unknown-model")
