"""Who is alive: by beats, by their absence, and by systemd's word."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing

import pytest

from rbee.errors import PROBLEM_PREFIX
from rbee.scope import HIVE_UNIT
from rbee.wire.hives import HiveView
from rbee.wire.routes import QueenRoutes
from tests.integration.house import OTHER_DEVICES, House
from tests.integration.test_add_hive import STORY

QUICK = {"heartbeat_interval": 0.3, "heartbeat_grace": 0.3}
SLOW = {"heartbeat_interval": 3600.0}
"""For what must be known without a beat, or without its absence."""


async def test_a_hive_that_falls_silent_is_suspect_then_offline_and_online_again_when_it_beats(
    house: House,
) -> None:
    queen = await house.added(**QUICK)
    before = time.time_ns() // 1_000_000

    house.hive.fall_silent()

    suspect = await house.journal.says(event="hive-suspect")
    assert suspect["MESSAGE"] == "the beehive localhost is suspect: no heartbeat for more than 0.6 s"
    assert (suspect["RBEE_HIVE"], suspect["PRIORITY"]) == ("localhost", "4")
    offline = await house.journal.says(event="hive-offline")
    assert offline["MESSAGE"] == "the beehive localhost is offline: no heartbeat for 3 intervals of 0.3 s"
    hive = await house.is_in("offline")
    assert hive.reason == "no heartbeat for 3 intervals of 0.3 s"
    assert before <= hive.since_ms <= time.time_ns() // 1_000_000
    assert hive.last_beat_ms is not None
    assert hive.last_beat_ms <= hive.since_ms
    assert (hive.wanted, hive.devices is not None) == (True, True)
    assert queen.notifier.statuses[-1] == "hives: 0 online, 0 suspect, 1 offline"
    assert house.systemd.asked == [("start", HIVE_UNIT)]

    house.hive.beat_again()

    await house.journal.says(event="hive-online")
    hive = await house.is_in("online")
    assert hive.reason == "heartbeats received"
    assert queen.notifier.statuses[-1] == "hives: 1 online, 0 suspect, 0 offline"


async def test_a_suspect_hive_keeps_its_status_in_the_catalog_and_is_online_again_by_its_next_beat(
    house: House,
) -> None:
    await house.added(heartbeat_interval=0.5, heartbeat_grace=0.1)
    before = house.row()
    house.hive.fall_silent()
    await house.journal.says(event="hive-suspect")
    assert house.row() == before

    house.hive.beat_again()

    await house.journal.says(event="hive-online")
    assert (await house.is_in("online")).reason == "heartbeats received"


async def test_beats_write_nothing_to_the_catalog(house: House) -> None:
    await house.added(**SLOW)
    before = house.row()
    queen = house.queens[0]
    changes = queen.catalog.engine._connection.total_changes

    beat = (await house.view()).last_beat_ms
    await asyncio.sleep(0.002)
    for _ in range(20):
        await house.hive.heart.beat()

    assert queen.catalog.engine._connection.total_changes == changes
    assert house.row() == before
    now = (await house.view()).last_beat_ms
    assert beat is not None
    assert now is not None
    assert now > beat


async def test_a_death_is_known_at_once_from_systemd_with_its_reason(house: House) -> None:
    await house.added(**SLOW)

    await house.systemd.hive_dies()

    entry = await house.journal.says(event="hive-offline")
    assert entry["MESSAGE"] == "the beehive localhost is offline: its process ended (killed by signal 9)"
    hive = await house.is_in("offline")
    assert hive.reason == "its process ended (killed by signal 9)"
    assert hive.wanted
    assert len(house.journal.of(event="hive-offline")) == 1


async def test_stopped_by_an_administrator_it_is_offline_and_no_longer_wanted(house: House) -> None:
    await house.added(**SLOW)

    await house.systemd.administrator_stops()

    entry = await house.journal.says(event="hive-offline")
    assert entry["MESSAGE"] == "the beehive localhost is offline: stopped by an administrator"
    hive = await house.is_in("offline")
    assert (hive.reason, hive.wanted) == ("stopped by an administrator", False)
    assert len(house.journal.of(event="hive-offline")) == 1
    assert house.systemd.asked == [("start", HIVE_UNIT)]


async def test_added_again_it_is_wanted_again(house: House) -> None:
    await house.added(**SLOW)
    await house.systemd.administrator_stops()
    assert not (await house.is_in("offline")).wanted

    lines, end = await house.add().rest()

    assert end.kind == "done"
    assert lines[:4] == STORY[:4]
    hive = await house.view()
    assert (hive.state, hive.wanted) == ("online", True)


async def test_started_again_by_an_administrator_it_is_online_by_itself(house: House) -> None:
    await house.added(**SLOW)
    await house.systemd.administrator_stops()
    await house.is_in("offline")

    await house.systemd.administrator_starts()

    await house.journal.says(event="hive-online")
    assert (await house.is_in("online")).reason == "heartbeats received"


async def test_restarted_by_systemd_it_is_online_again_by_itself_with_the_devices_of_now(
    house: House,
) -> None:
    await house.added(**SLOW)
    house.systemd.may_start.clear()
    await house.systemd.hive_dies(restart=True)
    assert "signal 9" in (await house.is_in("offline")).reason
    house.devices = lambda: OTHER_DEVICES

    house.systemd.may_start.set()

    entry = await house.journal.says(event="hive-online")
    assert entry["MESSAGE"] == "the beehive localhost is online again"
    assert "RBEE_JOB_ID" not in entry
    hive = await house.is_in("online")
    assert (hive.wanted, hive.devices) == (True, OTHER_DEVICES)
    assert house.systemd.asked == [("start", HIVE_UNIT)]


async def test_a_hive_that_comes_back_and_refuses_its_devices_is_pending_with_the_reason(
    house: House,
) -> None:
    house.expected_errors.add("detecting the devices failed")
    await house.added(**SLOW)
    house.systemd.may_start.clear()
    await house.systemd.hive_dies(restart=True)
    await house.is_in("offline")

    def breaks() -> None:
        raise OSError("the bus is gone")

    house.devices = breaks
    house.systemd.may_start.set()

    await house.journal.says(event="add-failed")
    hive = await house.view()
    assert hive.state == "pending"
    assert "the bus is gone" in hive.reason
    assert (await house.ask(QueenRoutes.JOBS)).jobs[0].state == "done"


async def test_stopped_together_with_the_queen_it_stays_wanted(house: House) -> None:
    await house.added(**SLOW)

    await house.systemd.queen_is_to_stop()

    hive = await house.is_in("offline")
    assert (hive.reason, hive.wanted) == ("stopped together with the queen", True)
    assert len(house.journal.of(event="hive-offline")) == 1


async def test_a_catalog_that_is_locked_for_a_while_does_not_end_the_judging(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.queen.store.sqlite.BUSY_TIMEOUT", 0.1)
    await house.added(**QUICK)
    with closing(sqlite3.connect(house.catalog_path, isolation_level=None)) as backup:
        backup.execute("BEGIN IMMEDIATE")
        house.hive.fall_silent()
        await house.journal.says(event="hive-offline")
        # Writes are made one after the other: when this one has failed, that of the verdict has, too.
        assert (await house.add().end()).data["type"] == PROBLEM_PREFIX + "catalog-failed"
        backup.execute("ROLLBACK")
    house.expected_errors.add("database is locked")

    house.hive.beat_again()
    await house.journal.says(event="hive-online")
    house.hive.fall_silent()

    # Judged again, as before.
    await house.journal.says(event="hive-offline", times=2)
    hive = await house.is_in("offline")
    assert hive.reason == "no heartbeat for 3 intervals of 0.3 s"


async def test_a_hive_seen_through_the_list_is_the_hive_seen_alone(house: House) -> None:
    await house.added(**SLOW)

    hives = (await house.ask(QueenRoutes.HIVES)).hives

    assert hives == (await house.view(),)
    assert isinstance(hives[0], HiveView)
