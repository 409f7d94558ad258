"""Adding, removing and shutting down: the stories as the user reads them, and how they end."""

from __future__ import annotations

import asyncio

import pytest

from rbee.errors import NotPermitted, TooMany, UnknownHost
from rbee.scope import HIVE_UNIT, TARGET
from rbee.wire.hives import AddHive
from rbee.wire.lines import Line
from tests.integration.queen.hives.local_hive import (
    ACTOR,
    DEVICES,
    LOCALHOST,
    STORY,
    MakeQueen,
    beat,
    error_of,
    hive_of,
    lines,
    told,
)
from tests.unit.played_systemd import INACTIVE, NoProgram
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)


async def test_adding_tells_the_story_and_ends_with_the_hive_online(queen: MakeQueen) -> None:
    async with queen() as q:
        events = await q.add()

        assert lines(events) == STORY
        hive = hive_of(events)
        assert hive is not None
        assert (hive.id, hive.state, hive.status, hive.devices) == (
            "localhost",
            "online",
            "online",
            DEVICES,
        )
        assert hive.last_beat_ms is not None
        assert await q.row() == ("online", True, DEVICES)
        assert q.systemd.asked == [("start", HIVE_UNIT)]
        assert q.life() == ("online", "heartbeats received")


async def test_each_line_of_the_queen_s_story_names_its_job_hive_and_who_asked(queen: MakeQueen) -> None:
    async with queen() as q:
        job = q.work.add(LOCALHOST, ACTOR)
        await told(job)

        assert len(q.tape.told) == 5
        for _, _, fields in q.tape.told:
            assert fields == {"job_id": job.id, "hive": "localhost", **ACTOR}


async def test_a_story_is_told_whether_anybody_listens_or_not(queen: MakeQueen) -> None:
    async with queen() as q:
        job = q.work.add(LOCALHOST, ACTOR)
        await q.tape.until("has-devices")
        await until(lambda: job.state != "running")

        assert lines(await told(job)) == STORY


async def test_two_who_add_at_once_wake_one_hive_and_both_hear_the_end(queen: MakeQueen) -> None:
    async with queen() as q:
        first, second = await asyncio.gather(q.add(), q.add())

        assert hive_of(first) is not None
        assert hive_of(second) is not None
        assert q.hive.starts == 1
        assert len(await q.catalog.hives.all()) == 1


@pytest.mark.parametrize("host", ["blade-7", "LOCALHOST.lan", "localhost ", "127.0.0.1", "\x1b[31m"])
async def test_an_unknown_host_is_refused_and_nothing_is_written(queen: MakeQueen, host: str) -> None:
    async with queen() as q:
        with pytest.raises(UnknownHost) as caught:
            q.work.add(AddHive(host), ACTOR)

        assert caught.value.field == "host"
        assert "rbeectl add-hive HOST" in (caught.value.hint or "")
        assert "sudo rbeectl join QUEEN:8500" in (caught.value.hint or "")
        assert await q.catalog.hives.all() == []
        assert q.jobs.all() == []
        assert q.tape.told == []


async def test_an_internal_error_ends_the_story_and_is_logged(
    queen: MakeQueen, caplog: pytest.LogCaptureFixture
) -> None:
    async with queen() as q:
        q.systemd.ask_start = lambda unit: 1 / 0

        error = error_of(await q.add())

        assert "internal error: ZeroDivisionError" in error.message
    (record,) = [one for one in caplog.records if one.name == "rbee"]
    assert record.exc_info
    assert record.exc_info[0] is ZeroDivisionError


async def test_more_jobs_than_are_kept_are_refused_before_anything_happens(queen: MakeQueen) -> None:
    async with queen() as q:
        q.systemd.programs[HIVE_UNIT] = NoProgram()
        for _ in range(16):
            q.work.add(LOCALHOST, ACTOR)

        with pytest.raises(TooMany):
            q.work.add(LOCALHOST, ACTOR)
        with pytest.raises(TooMany):
            q.work.remove("localhost", ACTOR)
        await until(lambda: q.tape.names().count("adding") == 16)
        # She may still be looking at what she has to bring back, which comes first.
        async with asyncio.timeout(5):
            while len(await q.catalog.hives.all()) != 1:
                pass


async def test_a_job_that_was_only_just_asked_for_is_cut_off_without_a_warning(queen: MakeQueen) -> None:
    async with queen() as q:
        job = q.work.add(LOCALHOST, ACTOR)
        await q.hives.end()
        q.jobs.close()

        assert "the queen is being stopped" in error_of(await told(job)).message


async def test_a_queen_who_stops_cuts_her_work_off_and_leaves_none_behind(queen: MakeQueen) -> None:
    async with queen() as q:
        q.systemd.programs[HIVE_UNIT] = NoProgram()
        job = q.work.add(LOCALHOST, ACTOR)
        await q.tape.until("waking")
        await q.hives.end()
        q.jobs.close()

        assert "the queen is being stopped" in error_of(await told(job)).message
        assert await q.row() == ("pending", True, None)


async def test_removing_stops_the_unit_and_forgets_the_hive(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()

        events = await told(q.work.remove("localhost", ACTOR))

        assert lines(events) == [
            ("queen bee", "Removing localhost from hive catalog"),
            ("queen bee", "the beehive localhost is stopped and no longer in the hive catalog"),
        ]
        assert hive_of(events) is None
        assert await q.catalog.hives.all() == []
        assert q.hives.find("localhost") is None
        assert q.systemd.states[HIVE_UNIT] == INACTIVE
        assert "hive-offline" not in q.tape.names(), "its end is no news when it was asked for"


async def test_removing_twice_is_no_error(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()
        await told(q.work.remove("localhost", ACTOR))

        events = await told(q.work.remove("localhost", ACTOR))

        assert hive_of(events) is None
        assert lines(events)[-1][1] == "the beehive localhost was not in the hive catalog"


async def test_removing_a_hive_that_is_not_of_this_machine_stops_no_unit(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()

        assert hive_of(await told(q.work.remove("blade-7", ACTOR))) is None
        assert q.systemd.asked == [("start", HIVE_UNIT)]
        assert len(await q.catalog.hives.all()) == 1


async def test_a_hive_that_was_removed_can_be_added_again(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()
        await told(q.work.remove("localhost", ACTOR))

        assert lines(await q.add()) == STORY


async def test_a_shutdown_has_systemd_stop_the_target_and_is_done_with_the_queen(queen: MakeQueen) -> None:
    async with queen() as q:
        job = q.work.shut_down(ACTOR)
        assert q.work.shut_down(ACTOR) is job, "asking again is the same shutdown"
        await until(lambda: q.systemd.asked != [])
        q.jobs.close()

        events = await told(job)

        assert lines(events) == [("queen bee", "Shutting down all hives")]
        assert events[-1][0] == "done"
        assert set(q.systemd.asked) == {("stop", TARGET)}


async def test_a_hive_s_goodbye_is_part_of_the_shutdown_s_story(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()
        job = q.work.shut_down(ACTOR)
        goodbye = Line("bee hive", "Received shutdown signal, goodbye", "goodbye", "2026-01-31T12:00:00Z")

        await q.hives.heartbeat(beat(state="stopping", lines=(goodbye,)))
        q.jobs.close()

        assert lines(await told(job)) == [
            ("queen bee", "Shutting down all hives"),
            ("bee hive", "Received shutdown signal, goodbye"),
        ]


async def test_a_shutdown_that_systemd_refuses_ends_in_its_error(queen: MakeQueen) -> None:
    async with queen() as q:
        q.systemd.refusal = NotPermitted("systemd does not let you do this")

        events = await told(q.work.shut_down(ACTOR))

        assert type(error_of(events)) is NotPermitted
        assert lines(events)[-1][1].startswith("shutting down failed")
