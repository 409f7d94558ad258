"""Stopping workers."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rbee.narration import WORKER_REMOVED
from tests.integration.queen.hives.local_hive import told
from tests.integration.queen.serving.serving_hive import a_queen
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(20)


async def test_leases_are_cut_before_and_two_stops_are_one(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played, played.client() as client:
        await client.granted()
        with client.connection.take():
            played.hive.may_stop.clear()
            (worker,) = played.serving.known.all()
            stops = [
                asyncio.ensure_future(
                    played.serving.stopper.stop(worker, played.tape, WORKER_REMOVED, "stop")
                )
                for _ in range(2)
            ]
            await until(played.hive.is_cut)
            assert played.states() == ["stopping"]
            stops[0].cancel()
            played.hive.may_stop.set()
            await stops[1]

        assert played.hive.stops == ["bee-1"]
        assert played.story("worker-removed") == ["stop"]
        assert played.states() == ["asleep"]


async def test_a_worker_that_is_gone_already_is_stopped(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.ask()
        await played.at_rest()
        (worker,) = played.serving.known.all()
        played.hive.workers.clear()
        await played.serving.stopper.stop(worker, played.tape, WORKER_REMOVED, "stop")

        assert played.serving.known.all() == []


async def test_what_it_used_is_learned_at_its_end(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.ask()
        await played.at_rest()
        await played.hive.becomes("bee-1", "ready", peak_bytes=2**30)
        (worker,) = played.serving.known.all()
        await played.serving.stopper.stop(worker, played.tape, WORKER_REMOVED, "stop")

        assert played.queen.library.models.learned("bee", 2048, "ram", "llama-server") == 2**30


async def test_nothing_is_learned_from_a_worker_of_a_former_file_which_ends_when_it_is_idle(
    tmp_path: Path,
) -> None:
    async with a_queen(tmp_path) as played:
        async with played.client() as client:
            await client.granted()
            with client.connection.take():
                await played.hive.becomes("bee-1", "busy", peak_bytes=2**30)
                await played.model("bee", path="/m/another.gguf")
                assert played.queen.library.models.learned("bee", 2048, "ram") is None
        await until(lambda: played.hive.stops == ["bee-1"])
        await until(lambda: played.serving.known.all() == [])

        assert played.queen.library.models.learned("bee", 2048, "ram") is None


async def test_nothing_is_learned_from_an_engine_that_fills_its_claim(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.loads_at_once = False
        async with played.client() as client:
            await until(lambda: len(played.hive.workers) == 1)
            await played.hive.becomes("bee-1", "ready", peak_bytes=2**30, fills_claim=True)
            await client.granted()
        await played.at_rest()
        (worker,) = played.serving.known.all()
        await played.serving.stopper.stop(worker, played.tape, WORKER_REMOVED, "stop")

        assert played.queen.library.models.learned("bee", 2048, "ram") is None


async def test_a_worker_takes_no_request_from_the_decision_to_stop_it_on(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.ask()
        await played.at_rest()
        (worker,) = played.serving.known.all()
        stopping = played.serving.stopper.begin(worker, played.tape, WORKER_REMOVED, "stop")
        assert not worker.is_ready  # before anything is awaited
        await stopping


async def test_a_worker_of_a_hive_that_is_offline_keeps_nobody_waiting(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.ask()
        await played.at_rest()
        await played.hive_stops()
        await played.model("bee", idle_s=0)
        played.queen.library.models.when_served("bee")
        await told(played.serving.unserve("bee", {}))

        assert played.hive.stops == []
        assert played.story("worker-idle") == []
        assert played.story("unserve-failed") == []
