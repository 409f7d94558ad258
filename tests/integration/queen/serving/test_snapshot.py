"""What hives are asked for before a placement."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.errors import HiveNotOnline
from tests.integration.queen.serving.serving_hive import LLAMA, a_queen

pytestmark = pytest.mark.deadline(20)


async def test_a_hive_that_is_online_reports_memory_and_engines(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        (hive,) = (await played.serving.snapshots.take()).hives

        assert hive.problem is None
        assert [pool.id for pool in hive.pools] == ["ram"]
        assert hive.engines == (LLAMA,)


async def test_a_hive_that_cannot_be_used_is_left_out_with_the_reason(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        hive = played.queen.hives.hive("localhost")
        await played.queen.catalog.hives.set_cordon("localhost", "new disk", by={})
        await hive.standing.reload()
        (cordoned,) = (await played.serving.snapshots.take()).hives
        await played.queen.catalog.hives.set_cordon("localhost", None, by={})
        await hive.standing.reload()
        hive.standing.set("offline", "its process ended")
        (offline,) = (await played.serving.snapshots.take()).hives

        assert (cordoned.problem, cordoned.may_recover) == ("it is cordoned: new disk", False)
        assert (offline.problem, offline.may_recover) == ("the beehive is offline: its process ended", True)
        with pytest.raises(HiveNotOnline):
            await played.serving.snapshots.memory("localhost")


async def test_a_hive_that_does_not_answer_is_left_out_with_the_reason(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.hive._stack.aclose()
        (hive,) = (await played.serving.snapshots.take()).hives

        assert hive.may_recover
        assert "it did not answer" in (hive.problem or "")


async def test_hives_that_cannot_be_chosen_are_not_asked(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        (hive,) = (await played.serving.snapshots.take({"other"})).hives

        assert (hive.problem, hive.pools) == (None, ())


async def test_the_memory_of_a_hive_is_shown(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        memory = await played.serving.snapshots.memory("localhost")

        assert memory.pools[0].total_bytes == played.hive.total
