"""The protocol of a lease's connection."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import rbee.queen.serving.lease_connection
from rbee.client.handover import handover
from rbee.wire.leases import LEASE_PROTOCOL, LINE_MAX, Ask, End, Granted, Refused, Wait
from tests.integration.queen.serving.serving_hive import REQUEST, Client, a_queen
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(20)


@pytest.mark.parametrize(
    ("sent", "detail"),
    [
        (b"hello\n", "the frame is not JSON"),
        (b'{"wait": {"text": "x"}}\n', "a lease begins with one Ask"),
        (b"x" * (LINE_MAX + 1), "a frame may have at most"),
        (b'{"ask": {"model": ""}}\n', "ask."),
    ],
    ids=["no JSON", "another frame", "too long", "not valid"],
)
async def test_anything_but_a_request_for_a_lease_is_refused(
    tmp_path: Path, sent: bytes, detail: str
) -> None:
    async with a_queen(tmp_path) as played, handover(played.path, "/v1/lease", LEASE_PROTOCOL) as connection:
        await asyncio.get_running_loop().sock_sendall(connection._channel, sent)
        refused = await Client(connection).refused()

        assert detail in refused.problem["detail"]
        assert refused.problem["status"] == 400


async def test_a_second_request_is_refused(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.loads_at_once = False
        async with played.client() as client:
            assert isinstance(await client.frame(), Wait)
            await until(lambda: len(played.hive.workers) == 1)
            await client.connection.send(Ask("bee", REQUEST, 1000))
            refused = await client.refused()

        assert "a lease begins with one Ask" in refused.problem["detail"]
        await played.hive.loads()
        await played.at_rest()


async def test_a_connection_without_a_request_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.queen.serving.lease_connection, "ASK_TIMEOUT", 0.05)
    async with a_queen(tmp_path) as played, handover(played.path, "/v1/lease", LEASE_PROTOCOL) as connection:
        client = Client(connection)
        refused = await client.end()

        assert isinstance(refused, Refused)
        assert "the lease got no Ask within" in refused.problem["detail"]
        assert await client.is_cut()


async def test_after_its_end_the_next_lease_takes_the_same_connection(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.model("wasp")
        async with played.client() as client:
            for model in ("bee", "wasp", "bee"):
                if client.frames:
                    await client.connection.send(Ask(model, REQUEST, 5000))
                granted = await client.granted()
                assert granted.worker.startswith(f"{model}-")
                kept = client.connection.take()
                assert played.serving.known.find(granted.worker).leases  # type: ignore[union-attr]
                with kept:
                    await client.connection.send(End())
                    assert await client.frame() == End()
                    await until(played.hive.is_cut)
                await played.at_rest()


async def test_a_lease_that_was_not_granted_cannot_be_ended(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.loads_at_once = False
        async with played.client() as client:
            assert isinstance(await client.frame(), Wait)
            await until(lambda: len(played.hive.workers) == 1)
            await client.connection.send(End())
            refused = await client.refused()
        assert "ends with one End once it was granted" in refused.problem["detail"]
        await played.hive.loads()
        await played.at_rest()


async def test_a_lease_after_another_is_refused_and_its_connection_closed(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played, played.client() as client:
        await client.granted()
        client.connection.take().close()
        await client.connection.send(End())
        assert await client.frame() == End()
        await client.connection.send(Ask("none", REQUEST, 5000))
        refused = await client.refused()
        assert refused.problem["status"] == 404
        assert await client.is_cut()


async def test_a_connection_without_a_lease_is_not_counted_when_all_are_cut(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played, played.client() as idle, played.client() as busy:
        for client in (idle, busy):
            assert isinstance(await client.granted(), Granted)
        idle.connection.take().close()
        await idle.connection.send(End())
        assert await idle.frame() == End()

        assert played.serving.leases.cut() == 1
        assert await busy.is_cut()
        assert "rbee is being shut down" in busy.reason
        assert await idle.is_cut()
        assert idle.frames[-1] == End()
