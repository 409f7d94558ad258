"""The stop of workers that nobody uses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.integration.queen.serving.serving_hive import a_queen
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(20)


async def test_a_worker_is_stopped_once_it_had_no_request_for_its_time(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.model("bee", idle_s=1)
        await played.ask()
        await until(lambda: played.states() == ["asleep"])

        assert played.hive.stops == ["bee-1"]
        assert played.story("worker-idle") == ["bee had no request for 1 s: stopping bee-1"]
        assert played.serving.idle._timer is None


async def test_a_busy_worker_and_a_pinned_one_are_not(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.model("bee", idle_s=1)
        await played.model("wasp", idle_s=1, is_pinned=True)
        await played.ask("wasp")
        async with played.client() as client:
            await client.granted()
            client.connection.take().close()
            await asyncio.sleep(1.2)

            assert played.states() == ["busy", "ready"]
            assert played.serving.idle._timer is None


async def test_without_workers_there_is_no_timer(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        assert played.serving.idle._timer is None
        await played.ask()
        await played.at_rest()
        assert played.serving.idle._timer is not None


async def test_a_shorter_time_counts_at_once(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.ask()
        await played.at_rest()
        await played.model("bee", idle_s=0)
        played.queen.library.models.when_served("bee")

        await until(lambda: played.states() == ["asleep"])


async def test_a_worker_that_could_not_be_stopped_is_tried_again_later(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.model("bee", idle_s=0)
        played.hive.refuses_stop = True
        await played.ask()
        await until(lambda: played.hive.stops == ["bee-1"])
        await until(lambda: played.states() == ["ready"])

        (worker,) = played.serving.known.all()
        assert worker.keep_until > asyncio.get_running_loop().time() + 20


@pytest.mark.parametrize("changed", [{"context": 1024}, {"engine": "vllm"}])
async def test_one_that_runs_otherwise_than_its_model_is_served_is_stopped_once_it_is_free(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    async with a_queen(tmp_path) as played:
        await played.model("bee", is_pinned=True)
        async with played.client() as client:
            await client.granted()
            client.connection.take().close()
            await played.model("bee", is_pinned=True, **changed)
            played.queen.library.models.when_served("bee")
            assert played.states() == ["busy"]
        await until(lambda: played.states() == ["asleep"])

        assert played.story("worker-idle") == [
            "bee is served with another file, context or engine now: stopping bee-1"
        ]


async def test_what_the_model_is_served_with_is_no_reason_to_stop_it(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.ask()
        await played.at_rest()
        await played.model("bee", context=2048, engine="llama-server")
        played.queen.library.models.when_served("bee")
        await asyncio.sleep(0.2)

        assert (played.states(), played.hive.stops) == (["ready"], [])
