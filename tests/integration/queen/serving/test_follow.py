"""Following a worker that loads."""

from __future__ import annotations

from pathlib import Path

import pytest

import rbee.queen.serving.follow
from rbee.wire.leases import Granted
from tests.integration.queen.serving.serving_hive import a_queen
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(20)


async def test_a_worker_that_a_queen_before_has_started_is_followed(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.adopted()
        await played.hive.becomes("bee-1", "loading", percent=5.0)
        await until(lambda: played.states() == ["loading"])
        async with played.client() as client:
            await client.frame()
            await played.hive.loads()
            assert (await client.granted()).worker == "bee-1"
        assert played.hive.starts == []


async def test_a_hive_that_restarts_while_it_loads_is_waited_for(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.loads_at_once = False
        async with played.client(hold=15.0) as client:
            await until(lambda: len(played.hive.workers) == 1)
            closing = played.hive._stack.aclose()
            async with played.hive._news:
                played.hive._news.notify_all()
            await closing
            played.hive.instance = "2" * 32
            await played.hive.start()
            await played.hive.loads()
            granted = await client.end()

        assert isinstance(granted, Granted)
        assert len(played.hive.starts) == 1


async def test_a_hive_that_stays_away_fails_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.queen.serving.follow, "HIVE_PATIENCE", 0.2)
    async with a_queen(tmp_path) as played:
        played.hive.loads_at_once = False
        async with played.client() as client:
            await until(lambda: len(played.hive.workers) == 1)
            closing = played.hive._stack.aclose()
            async with played.hive._news:
                played.hive._news.notify_all()
            await closing
            refused = await client.refused()

        assert "the beehive localhost did not answer for 0.2 s" in refused.problem["detail"]


async def test_a_worker_that_is_stopped_while_it_loads_is_reported(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.loads_at_once = False
        async with played.client() as client:
            await until(lambda: len(played.hive.workers) == 1)
            await played.hive.becomes("bee-1", "stopped")
            refused = await client.refused()

        assert refused.problem["detail"] == "bee-1 was stopped while it loaded bee"


async def test_a_file_that_a_start_did_not_find_is_missing_until_one_does(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.loads_at_once = False
        bee = played.queen.library.models.model("bee")
        async with played.client() as client:
            await until(lambda: len(played.hive.workers) == 1)
            await played.hive.becomes("bee-1", "failed", reason="it is gone", is_file_missing=True)
            await client.refused()
        assert (bee.row.state, bee.row.reason) == ("missing", f"the last start did not find {bee.row.path}")

        await played.at_rest()
        async with played.client() as client:
            await until(lambda: "bee-2" in played.hive.workers)
            await played.hive.loads("bee-2")
            await client.granted()
        assert (bee.row.state, bee.row.reason) == ("ready", "")


@pytest.mark.parametrize(("found", "state"), [(True, "ready"), (False, "missing")])
async def test_a_file_that_a_failed_start_has_found_is_missing_no_more(
    tmp_path: Path, found: bool, state: str
) -> None:
    async with a_queen(tmp_path) as played:
        await played.model("bee", state="missing", reason="the last start did not find it")
        played.hive.loads_at_once = False
        async with played.client() as client:
            await until(lambda: len(played.hive.workers) == 1)
            await played.hive.becomes("bee-1", "failed", reason="it is no model", is_file_found=found)
            await client.refused()
        assert played.queen.library.models.model("bee").row.state == state
