"""Hives are judged by their silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.queen.hives.local_hive import DEVICES, MakeQueen
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)


async def test_silence_makes_a_hive_suspect_then_offline_and_a_beat_brings_it_back(queen: MakeQueen) -> None:
    async with queen(interval=0.1, grace=0.05) as q:
        await q.add()
        q.hive.wire.is_cut = True

        await q.tape.until("hive-suspect", "the beehive localhost is suspect: no heartbeat for more than")
        assert await q.row() == ("online", True, DEVICES)
        await q.tape.until("hive-offline", "no heartbeat for 3 intervals of 0.1 s")

        async def is_stored() -> bool:
            return await q.row() == ("offline", True, DEVICES)

        await until(is_stored)
        q.hive.wire.is_cut = False
        await q.tape.until("hive-online", "the beehive localhost is online again")

        assert q.life()[0] == "online"
        assert q.tape.names().count("first-heartbeat") == 1, "its process is the same"


async def test_a_catalog_that_cannot_be_written_does_not_end_the_judging(
    queen: MakeQueen, tmp_path: Path
) -> None:
    async with queen(interval=0.05, grace=0.05) as q:
        await q.add()
        q.catalog.engine._connection.execute("PRAGMA query_only = 1")
        q.hive.wire.is_cut = True
        await q.tape.until("hive-offline", "3 intervals")
        q.hive.wire.is_cut = False
        await q.tape.until("hive-online")
        q.tape.told.clear()
        q.catalog.engine._connection.execute("PRAGMA query_only = 0")
        q.hive.wire.is_cut = True

        await q.tape.until("hive-offline", "3 intervals")
