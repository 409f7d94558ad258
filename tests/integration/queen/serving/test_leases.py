"""Leases: what a client's request gets, cold and warm, and how it ends."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from rbee.wire.leases import Granted, Wait
from tests.integration.queen.serving.serving_hive import GIB, a_queen
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(20)


async def test_a_request_for_a_cold_model_starts_a_worker_and_gets_a_connection_to_it(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played, played.client() as client:
        granted = await client.granted()
        with client.connection.take() as engine:
            engine.setblocking(True)
            engine.sendall(b"hello")
            assert played.hive.engines["bee-1"][0].recv(5) == b"hello"

        assert (granted.worker, granted.was_cold) == ("bee-1", True)
        assert played.states() == ["busy"]
        ((start, job_id),) = played.hive.starts
        assert (start.model, start.engine, start.pool, start.path) == (
            "bee", "llama-server", "ram", "/m/bee.gguf",
        )  # fmt: skip
        assert job_id == granted.job_id
        assert start.claim_bytes < 100 * 2**20
        assert [text.split(";")[1] for text in played.story("worker-placed")] == [
            " localhost ram has 8.0 GiB free: waking it there"
        ]


async def test_a_request_for_a_warm_model_gets_the_same_worker(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.ask()
        second = await played.ask()

        assert second == Granted("bee-1", was_cold=False)
        assert len(played.hive.starts) == 1


async def test_fifty_clients_of_a_cold_model_cause_one_start(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.loads_at_once = False
        async with AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(played.client()) for _ in range(50)]
            assert isinstance(await clients[0].frame(), Wait)
            await until(lambda: len(played.hive.workers) == 1)
            await played.hive.becomes("bee-1", "loading", percent=62.0)
            frame = await clients[0].frame()
            while "62" not in getattr(frame, "text", ""):
                frame = await clients[0].frame()
            assert isinstance(frame, Wait)
            assert frame.percent == 62.0
            await played.hive.loads()
            granted = [await client.granted() for client in clients]
            for client in clients:
                client.connection.take().close()

            assert {one.worker for one in granted} == {"bee-1"}
            assert len(played.hive.starts) == 1
            assert len(next(iter(played.serving.known.all())).leases) == 50
        await played.at_rest()


async def test_the_end_of_a_lease_ends_the_connection_to_the_engine_whoever_holds_it(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        async with played.client() as client:
            await client.granted()
            kept = client.connection.take()
        with kept:
            await until(played.hive.is_cut)
        await played.at_rest()


async def test_a_client_that_leaves_ends_its_request_and_no_start(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.loads_at_once = False
        async with played.client() as client:
            await client.frame()
            await until(lambda: len(played.hive.workers) == 1)
        await played.hive.loads()
        await until(lambda: played.states() == ["ready"])


async def test_a_request_is_held_for_its_time_and_then_refused_with_how_far_it_is(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.loads_at_once = False
        async with played.client(hold=0.3) as client:
            refused = await client.refused()

        assert refused.problem["type"] == "urn:rbee:problem:still-waiting"
        assert refused.problem["status"] == 503
        assert "bee is not awake yet: loading bee" in refused.problem["detail"]
        assert refused.retry_s == 10
        await played.hive.loads()
        await played.at_rest()


@pytest.mark.parametrize(
    ("name", "slug", "status"), [("wasp", "unknown-model", 404), ("idle", "not-served", 404)]
)
async def test_a_model_that_is_not_there_or_not_served_is_refused(
    tmp_path: Path, name: str, slug: str, status: int
) -> None:
    async with a_queen(tmp_path) as played:
        await played.model("idle", is_served=False)
        async with played.client(name) as client:
            refused = await client.refused()

        assert refused.problem["type"] == f"urn:rbee:problem:{slug}"
        assert (refused.problem["status"], refused.retry_s) == (status, None)


async def test_a_key_that_is_not_known_is_refused(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        async with played.client(key="0" * 64) as client:
            refused = await client.refused()

        assert (refused.problem["type"], refused.problem["status"]) == ("urn:rbee:problem:bad-key", 401)
        assert played.hive.starts == []


async def test_the_first_request_adds_the_local_hive_and_wakes_it(tmp_path: Path) -> None:
    async with a_queen(tmp_path, with_hive=False) as played:
        granted = await played.ask()

        assert isinstance(granted, Granted)
        assert played.story("waking") == ["waking up the bee hive at localhost"]


async def test_a_worker_that_takes_no_connection_is_not_used(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.ask()
        played.hive.refuses_connect = True
        async with played.client() as client:
            refused = await client.refused()

        assert refused.problem["type"] == "urn:rbee:problem:worker-not-ready"
        assert played.states() == ["ready"]


async def test_the_next_queen_finds_the_workers_and_the_gateway_resumes_its_leases(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played, played.client() as client:
        await client.granted()
        kept = client.connection.take()
        hive = played.hive
        engine = hive.engines["bee-1"][0]
        await played.queen.serving.end()
        assert await client.is_cut()
        assert isinstance(client.frames[-1], Granted)  # the gateway asks the next queen
        with pytest.raises(BlockingIOError):
            engine.recv(1)  # not cut
        kept.sendall(b"on")
        assert engine.recv(2) == b"on"
        kept.close()


async def test_a_lease_is_resumed_for_a_worker_of_a_queen_before(tmp_path: Path) -> None:
    async with a_queen(tmp_path, with_hive=False) as played:
        played.hive.adopted()
        async with played.client(resume="bee-1") as client:
            await asyncio.sleep(0.05)  # the hive has not reported it yet
            await played.queen.work.ensure(
                "localhost", played.queen.jobs.open("add-hive", None), played.tape, {}
            )
            granted = await client.granted()

            assert granted == Granted("bee-1", was_cold=False)
            assert played.states() == ["busy"]
        await until(lambda: played.states() == ["ready"])


async def test_a_lease_of_a_worker_that_nobody_has_is_not_resumed(tmp_path: Path) -> None:
    async with (
        a_queen(tmp_path) as played,
        played.client(resume="bee-7", hold=0.1) as client,
    ):
        refused = await client.refused()

        assert refused.problem["type"] == "urn:rbee:problem:unknown-worker"


async def test_leases_are_cut_before_rbee_is_shut_down(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played, played.client() as client:
        await client.granted()
        with client.connection.take():
            played.queen.work.shut_down({})
            assert await client.is_cut()
            assert client.reason == "rbee is being shut down"
            assert played.story("leases-cut") == ["cutting 1 request before the workers stop"]
            await until(played.hive.is_cut)


async def test_memory_that_nobody_could_free_is_refused_with_the_sums(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.model("whale", memory_bytes=9 * GIB)
        async with played.client("whale") as client:
            refused = await client.refused()

        assert refused.problem["type"] == "urn:rbee:problem:no-room"
        assert "whale needs 9.0 GiB (operator)" in refused.problem["detail"]
        assert "localhost ram has 8.0 GiB of 8.0 GiB free" in refused.problem["detail"]
