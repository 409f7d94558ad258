"""A queen who comes back to the same catalog."""

from __future__ import annotations

import asyncio
import json

from rbee.scope import HIVE_UNIT
from rbee.wire.codec import encode
from rbee.wire.routes import QueenRoutes
from tests.integration.house import DEVICES, House, Queen, answers, soon, until
from tests.integration.test_add_hive import STORY

SLOW = {"heartbeat_interval": 3600.0}


async def test_a_hive_is_unknown_until_it_is_heard_of_and_then_online(house: House) -> None:
    queen = await house.added(**SLOW)
    await queen.kill()  # the hive's beats are an hour apart, and it lives on

    await house.wake_queen(**SLOW)

    hive = await house.view()
    assert (hive.state, hive.status) == ("unknown", "online")
    assert hive.reason == "no heartbeat since the queen started (last known: online)"
    assert (hive.last_beat_ms, hive.devices) == (None, DEVICES)
    await house.hive.heart.beat()
    assert (await house.is_in("online")).reason == "heartbeats received"
    assert house.systemd.asked == [("start", HIVE_UNIT)]


async def test_a_process_whose_devices_the_queen_has_is_not_asked_for_them_again(house: House) -> None:
    queen = await house.added(**SLOW)
    await queen.kill()
    await house.wake_queen(**SLOW)

    await house.hive.heart.beat()

    assert (await house.is_in("online")).devices == DEVICES
    assert house.detections == 1


async def test_devices_that_changed_while_the_queen_was_away_are_asked_for(house: House) -> None:
    queen = await house.added(**SLOW)
    await queen.kill()
    house.devices, house.fingerprint = lambda: DEVICES._replace(gpus=()), "f2"
    await house.wake_queen(**SLOW)

    await house.hive.heart.beat()

    assert (await house.is_in("online")).devices == DEVICES._replace(gpus=())


async def test_a_hive_that_is_not_heard_of_in_time_is_offline(house: House) -> None:
    queen = await house.added(**SLOW)
    await queen.kill()

    await house.wake_queen(heartbeat_interval=0.2, heartbeat_grace=0.2)

    await house.journal.says(event="hive-offline")
    assert (await house.is_in("offline")).reason == "no heartbeat since the queen started"


async def test_a_wanted_hive_that_does_not_run_is_started(house: House) -> None:
    queen = await house.added(**SLOW)
    await house.systemd.queen_dies(queen)
    assert house.systemd.state(HIVE_UNIT).is_stopped

    await house.wake_queen(**SLOW)

    await house.journal.says(event="hive-online")
    assert (await house.is_in("online")).reason == "heartbeats received"
    assert house.systemd.asked == [("start", HIVE_UNIT)] * 2
    told = house.journal.of(event="waking")[-1]
    assert told["MESSAGE"] == "waking up the bee hive at localhost"
    assert "RBEE_JOB_ID" not in told
    assert (await house.ask(QueenRoutes.JOBS)).jobs == ()


async def test_stopped_with_the_queen_a_hive_comes_back_with_her(house: House) -> None:
    queen = await house.added(**SLOW)
    await house.systemd.queen_is_stopped(queen)

    await house.wake_queen(**SLOW)

    assert (await house.is_in("online")).wanted


async def test_a_wanted_hive_that_cannot_be_started_is_offline_with_the_reason(house: House) -> None:
    queen = await house.added(**SLOW)
    await house.systemd.queen_dies(queen)
    house.systemd.start_fails = True

    await house.wake_queen(**SLOW)

    hive = await house.is_in("offline")
    assert hive.reason
    assert hive.wanted


async def test_a_hive_that_an_administrator_stopped_is_not_started(house: House) -> None:
    queen = await house.added(**SLOW)
    await house.systemd.administrator_stops()
    await house.is_in("offline")
    await queen.stop()

    await house.wake_queen(**SLOW)

    hive = await house.is_in("offline")
    assert (hive.reason, hive.wanted) == ("stopped by an administrator", False)
    assert house.systemd.asked == [("start", HIVE_UNIT)]


async def test_a_queen_with_an_empty_catalog_starts_nothing(house: House) -> None:
    queen = await house.wake_queen()
    await queen.stop()

    await house.wake_queen()

    assert (await house.ask(QueenRoutes.HIVES)).hives == ()
    assert house.systemd.asked == []


async def test_adding_goes_on_with_a_new_queen_after_the_old_one_died_in_the_middle(house: House) -> None:
    queen = await house.wake_queen(**SLOW)
    detected = house.gate()
    house.detect_after(detected)
    story = house.add()
    await story.to("unknown capabilities")
    await queen.kill()
    detected.set()

    await house.wake_queen(**SLOW)
    lines, end = await house.add().rest()

    assert (lines[-1], end.kind) == (STORY[-1], "done")
    await house.is_in("online")


async def test_a_hive_that_runs_is_online_when_its_beat_has_come_and_not_by_its_answer(house: House) -> None:
    queen = await house.added(**SLOW)
    await queen.kill()
    await house.wake_queen(**SLOW)
    # The answer about the devices comes, and the beat before it is lost on the dead queen's connection.
    house.spoil = answers(200, json.dumps(encode(DEVICES)).encode())
    story = await house.add().begins()
    for _ in range(3):  # as far as asking for the devices
        await story.line()
    hive = await house.view()
    assert (hive.state, hive.last_beat_ms) == ("unknown", None)
    assert story.is_quiet
    house.spoil = None
    before = house.detections

    await soon(house.hive.heart.beat())

    # It was added while it ran: its devices are known, and nothing is told twice.
    assert (await story.rest())[1].kind == "done"
    hive = await house.view()
    assert (hive.state, hive.status) == ("online", "online")
    assert hive.last_beat_ms is not None
    assert house.detections == before


async def test_a_hive_that_is_removed_while_the_queen_reconciles_is_not_started_again(house: House) -> None:
    queen = await house.added(**SLOW)
    await house.systemd.queen_dies(queen)
    jobs = []

    def remove_at_once(new: Queen) -> None:
        jobs.append(new.work.remove("localhost", {}))

    house.queen_began = remove_at_once
    await house.wake_queen(**SLOW)
    await until(lambda: jobs[0].state != "running")
    await asyncio.gather(*queen_tasks(house.queens[0]))

    assert jobs[0].state == "done"
    assert house.row() is None
    assert not house.systemd.state(HIVE_UNIT).is_active


ENDLESS = ("Watch.run", "ClientKeys.run")


def queen_tasks(queen: Queen) -> list[asyncio.Task[None]]:
    """Her tasks that end by themselves."""
    return [
        task
        for task in queen._tasks._tasks
        if task.get_coro().__qualname__ not in ENDLESS  # type: ignore[union-attr]
    ]
