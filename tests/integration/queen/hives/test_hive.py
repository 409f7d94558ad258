"""What the heartbeats of a hive mean, and what is left of one that is removed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rbee.errors import CatalogFailed
from rbee.scope import HIVE_UNIT
from rbee.wire.heartbeats import HeartbeatAck
from tests.integration.queen.hives.local_hive import ACTOR, DEVICES, LOCALHOST, MakeQueen, beat, told
from tests.unit.played_systemd import ACTIVE, KILLED, NoProgram
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)


@pytest.mark.parametrize("step", ["touch", "remove"])
async def test_a_hive_that_the_catalog_does_not_let_go_of_runs_on(
    queen: MakeQueen, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    async with queen() as q:
        await q.add()
        q.systemd.asked.clear()

        async def fail(*_arguments: Any, **_options: Any) -> None:
            raise CatalogFailed("the disk is full")

        monkeypatch.setattr(q.catalog.hives, step, fail)
        events = await told(q.work.remove("localhost", ACTOR))

        assert "the disk is full" in str(events[-1])
        assert q.systemd.states[HIVE_UNIT].is_active
        stopped = [("stop", HIVE_UNIT), ("start", HIVE_UNIT)]
        assert q.systemd.asked == ([] if step == "touch" else stopped)
        assert [row.id for row in await q.catalog.hives.all()] == ["localhost"]


async def test_a_beat_of_a_hive_that_is_online_writes_nothing_to_disk(
    queen: MakeQueen, tmp_path: Path
) -> None:
    async with queen() as q:
        await q.add()
        await q.catalog.hives.all()
        before = [(tmp_path / f"catalog.db{suffix}").read_bytes() for suffix in ("", "-wal")]

        for _ in range(20):
            await q.hive._heart.beat()

        after = [(tmp_path / f"catalog.db{suffix}").read_bytes() for suffix in ("", "-wal")]
        assert after == before
        life = q.hives.hive("localhost").standing.life
        assert life is not None
        assert life.last_beat_ms is not None


async def test_an_ack_says_how_often_to_beat(queen: MakeQueen) -> None:
    async with queen(interval=2.5) as q:
        await q.add()

        assert await q.hives.heartbeat(beat(state="starting")) == HeartbeatAck("ok", 2500, None)


async def test_a_hive_that_only_announces_itself_is_not_alive_yet(queen: MakeQueen) -> None:
    async with queen() as q:
        q.systemd.programs[HIVE_UNIT] = NoProgram()
        job = q.work.add(LOCALHOST, ACTOR)
        await until(lambda: q.systemd.states[HIVE_UNIT] == ACTIVE)

        ack = await q.hives.heartbeat(beat(state="starting"))

        assert ack.job_id == job.id
        assert job.state == "running"
        assert "first-heartbeat" not in q.tape.names()


async def test_a_hive_that_systemd_started_again_comes_online_with_its_devices_of_now(
    queen: MakeQueen,
) -> None:
    async with queen() as q:
        await q.add()
        await q.hive.kill()
        q.systemd.becomes(HIVE_UNIT, KILLED)
        await q.tape.until("hive-offline")
        q.hive.detect = lambda: DEVICES._replace(gpus=())

        await q.systemd.start_by_hand(HIVE_UNIT)
        await q.tape.until("hive-online", "the beehive localhost is online again")

        assert q.life()[0] == "online"
        assert await q.row() == ("online", True, DEVICES._replace(gpus=()))


async def test_a_hive_that_an_administrator_starts_again_is_wanted_again(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()
        await q.systemd.stop_by_hand(HIVE_UNIT)
        await q.tape.until("hive-offline")

        await q.systemd.start_by_hand(HIVE_UNIT)
        await q.tape.until("hive-online")

        assert q.life()[0] == "online"
        assert await q.row() == ("online", True, DEVICES)
