"""Removing a hive: stopped, forgotten, and no ghost of it left."""

from __future__ import annotations

import asyncio

from rbee.errors import PROBLEM_PREFIX
from rbee.scope import HIVE_UNIT
from rbee.wire.routes import QueenRoutes
from tests.integration.house import House, until
from tests.integration.test_add_hive import STORY
from tests.integration.test_bad_input import BEAT, is_problem

REMOVED = [
    "(queen bee) Removing localhost from hive catalog",
    "(bee hive) Received shutdown signal, goodbye",
    "(queen bee) the beehive localhost is stopped and no longer in the hive catalog",
]


async def test_removing_stops_the_unit_and_takes_the_row_out_of_the_catalog(house: House) -> None:
    queen = await house.added()

    story = house.remove()
    lines, end = await story.rest()

    assert [line for line in lines if line.startswith("(queen bee)")] == [REMOVED[0], REMOVED[2]]
    assert (end.kind, end.data) == ("done", {"hive": None, "was_there": True, "model": None})
    assert house.systemd.state(HIVE_UNIT).active == "inactive"
    assert house.row() is None
    assert (await house.ask(QueenRoutes.HIVES)).hives == ()
    assert queen.notifier.statuses[-1] == "hives: 0 online, 0 suspect, 0 offline"
    assert [entry["RBEE_EVENT"] for entry in house.journal.of(job_id=story.job_id, speaker="queen bee")] == [
        "removing",
        "removed",
    ]
    assert house.journal.of(event="hive-offline") == []


async def test_the_unit_is_stopped_before_the_row_is_gone(house: House) -> None:
    await house.added()
    house.systemd.may_stop.clear()

    story = await house.remove().begins()
    assert await story.line() == REMOVED[0]
    await until(lambda: house.systemd.state(HIVE_UNIT).active == "deactivating")

    assert house.row() is not None
    house.systemd.may_stop.set()
    assert (await story.end()).kind == "done"
    assert house.row() is None


async def test_removing_what_is_not_there_is_no_error(house: House) -> None:
    await house.wake_queen()

    for hive_id in ("localhost", "elsewhere"):
        lines, end = await house.remove(hive_id).rest()
        assert lines == [
            f"(queen bee) Removing {hive_id} from hive catalog",
            f"(queen bee) the beehive {hive_id} was not in the hive catalog",
        ]
        assert (end.kind, end.data) == ("done", {"hive": None, "was_there": False, "model": None})


async def test_removing_twice_is_fine(house: House) -> None:
    await house.added()

    assert (await house.remove().end()).kind == "done"
    assert (await house.remove().end()).kind == "done"

    assert house.row() is None


async def test_removing_at_once_ends_each_story(house: House) -> None:
    await house.added()

    ends = await asyncio.gather(*(house.remove().end() for _ in range(5)))

    assert {end.kind for end in ends} == {"done"}
    assert house.row() is None


async def test_a_beat_after_the_removal_is_refused(house: House) -> None:
    await house.added()
    await house.remove().end()

    is_problem(await house.post("/heartbeat", BEAT), 404, "unknown-hive", "hive_id")
    assert house.row() is None


async def test_a_hive_that_starts_while_it_is_removed_leaves_no_ghost(house: House) -> None:
    queen = await house.added()
    hive = queen.hives.hive("localhost")
    house.systemd.may_stop.clear()
    story = await house.remove().begins()
    await until(lambda: house.systemd.state(HIVE_UNIT).active == "deactivating")
    assert (await house.post("/heartbeat", BEAT)).status == 200  # the first beat of another process

    house.systemd.may_stop.set()
    assert (await story.end()).kind == "done"

    await until(lambda: not hive.lock.locked())
    is_problem(await house.post("/heartbeat", BEAT), 404, "unknown-hive", "hive_id")
    assert queen.notifier.statuses[-1] == "hives: 0 online, 0 suspect, 0 offline"


async def test_a_removed_hive_can_be_added_again_from_the_beginning(house: House) -> None:
    await house.added()
    await house.remove().end()

    lines, end = await house.add().rest()

    assert (lines, end.kind) == (STORY, "done")


async def test_a_hive_that_was_removed_does_not_come_back_with_a_new_queen(house: House) -> None:
    queen = await house.added()
    await house.remove().end()
    await queen.stop()

    await house.wake_queen()

    assert (await house.ask(QueenRoutes.HIVES)).hives == ()
    assert house.systemd.state(HIVE_UNIT).is_stopped


async def test_a_unit_that_does_not_stop_ends_the_story_in_error_and_keeps_the_row(house: House) -> None:
    await house.added()
    house.systemd.stop_fails = True

    lines, end = await house.remove().rest()

    assert lines[-1].startswith("(queen bee) removing localhost failed: ")
    assert end.data["type"] == PROBLEM_PREFIX + "unit-failed"
    assert house.row() is not None
