"""The local hive and its unit: how it is started, and what its end means."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.errors import NotPermitted, Stopping, TimedOut, UnitFailed
from rbee.queen.hives.describe import describe
from rbee.scope import HIVE_UNIT, QUEEN_UNIT
from rbee.systemd.unit import UnitState
from rbee.wire.heartbeats import MachineEnd
from tests.integration.queen.hives.local_hive import (
    ACTOR,
    DEVICES,
    LOCALHOST,
    MakeQueen,
    a_row,
    error_of,
    hive_of,
    lines,
    told,
)
from tests.unit.played_systemd import ACTIVE, INACTIVE, KILLED, DiedError, NoProgram, PlayedSystemd
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)


async def test_adding_again_goes_on_from_where_the_hive_is(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()
        before = await q.catalog.hives.find("localhost")
        q.hive.detect = lambda: DEVICES._replace(gpus=())

        events = await q.add()

        assert [text for _, text in lines(events)] == [
            "Adding local pc to hive catalog.",
            "the bee hive at localhost is awake already",
            "asking the beehive localhost whether its devices have changed",
            "Detected CPU and GPUs, responding to queen",
            describe("localhost", DEVICES._replace(gpus=())),
        ]
        assert hive_of(events) is not None
        after = await q.catalog.hives.find("localhost")
        assert before is not None
        assert after is not None
        assert after.created_at_ms == before.created_at_ms
        assert after.devices == DEVICES._replace(gpus=())
        assert q.systemd.asked == [("start", HIVE_UNIT)]
        assert len(await q.catalog.hives.all()) == 1


async def test_a_hive_that_runs_before_anybody_added_it_is_taken_as_it_is(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.systemd.start_by_hand(HIVE_UNIT)

        events = await q.add()

        assert hive_of(events) is not None
        assert q.systemd.asked == []
        assert await q.row() == ("online", True, DEVICES)


async def test_a_unit_that_does_not_start_ends_the_story_with_the_unit_s_own_words(queen: MakeQueen) -> None:
    class Broken(NoProgram):
        async def start(self) -> None:
            raise DiedError(
                UnitState("loaded", "failed", "failed", result="exit-code", status_text="Id= must match")
            )

    async with queen() as q:
        q.systemd.programs[HIVE_UNIT] = Broken()

        events = await q.add()

        error = error_of(events)
        assert type(error) is UnitFailed
        assert "its result is 'exit-code', it said: Id= must match" in error.message
        assert lines(events)[-1] == ("queen bee", f"adding localhost failed: {error.message}")
        assert q.life()[0] == "offline"
        assert await q.row() == ("offline", True, None)

        q.systemd.programs[HIVE_UNIT] = q.hive
        assert hive_of(await q.add()) is not None


async def test_a_queen_who_may_not_start_the_unit_says_so(queen: MakeQueen) -> None:
    async with queen() as q:
        q.systemd.refusal = NotPermitted("systemd does not let you do this")

        events = await q.add()

        assert type(error_of(events)) is NotPermitted
        assert q.life() == ("offline", "systemd does not let you do this")


async def test_a_hive_that_starts_and_never_beats_is_not_waited_for_for_ever(queen: MakeQueen) -> None:
    async with queen(hive_start_timeout=0.1) as q:
        q.systemd.programs[HIVE_UNIT] = NoProgram()

        error = error_of(await q.add())

        assert type(error) is TimedOut
        assert error.message == "rbee-hive.service started, and no heartbeat came within 0.1 s"
        assert q.life() == ("offline", error.message)


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (
            UnitState("loaded", "failed", "failed", result="exit-code", exit_status=78),
            "its process ended (exit status 78)",
        ),
        (
            UnitState("loaded", "failed", "failed", result="signal", exit_status=11),
            "its process ended (killed by signal 11)",
        ),
        (INACTIVE, "stopped by an administrator"),
    ],
)
async def test_a_hive_that_dies_before_its_first_beat_ends_the_story_at_once(
    queen: MakeQueen, state: UnitState, reason: str
) -> None:
    async with queen(hive_start_timeout=60) as q:
        q.systemd.programs[HIVE_UNIT] = NoProgram()
        job = q.work.add(LOCALHOST, ACTOR)
        await until(lambda: q.systemd.states[HIVE_UNIT] == ACTIVE)
        q.systemd.becomes(HIVE_UNIT, state)

        error = error_of(await told(job))

        assert type(error) is UnitFailed
        assert reason in error.message
        assert q.life()[0] == "offline"


async def test_a_hive_that_could_not_be_stopped_stays_in_the_catalog(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()
        q.systemd.refusal = NotPermitted("systemd does not let you do this")

        events = await told(q.work.remove("localhost", ACTOR))

        assert type(error_of(events)) is NotPermitted
        assert lines(events)[-1][1].startswith("removing localhost failed")
        assert await q.row() == ("online", True, DEVICES)
        assert q.life()[0] == "online"


async def test_a_stop_by_an_administrator_is_respected(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()

        await q.systemd.stop_by_hand(HIVE_UNIT)
        await q.tape.until("hive-offline", "stopped by an administrator")
        await until(lambda: q.life() == ("offline", "stopped by an administrator"))

        async def is_stored() -> bool:
            return await q.row() == ("offline", False, DEVICES)

        await until(is_stored)


async def test_a_process_that_is_killed_is_known_at_once_and_stays_wanted(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()

        await q.hive.kill()
        q.systemd.becomes(HIVE_UNIT, KILLED)
        await q.tape.until("hive-offline")

        assert q.life() == ("offline", "its process ended (killed by signal 9)")

        async def is_stored() -> bool:
            return await q.row() == ("offline", True, DEVICES)

        await until(is_stored)


async def test_a_hive_that_goes_with_the_queen_stays_wanted(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()
        q.systemd.job(QUEEN_UNIT, "stop")

        await q.systemd.stop_by_hand(HIVE_UNIT)
        await q.tape.until("hive-offline", "stopped together with the queen")

        async def is_stored() -> bool:
            return await q.row() == ("offline", True, DEVICES)

        await until(is_stored)


@pytest.mark.parametrize(
    ("ending", "reason"),
    [("rebooting", "its machine is rebooting"), ("shutting-down", "its machine is shutting down")],
)
async def test_a_hive_that_goes_with_the_machine_stays_wanted(
    queen: MakeQueen, ending: MachineEnd, reason: str
) -> None:
    async with queen() as q:
        await q.add()
        q.systemd.ending = ending

        await q.systemd.stop_by_hand(HIVE_UNIT)
        await q.tape.until("hive-offline", reason)

        async def is_stored() -> bool:
            return await q.row() == ("offline", True, DEVICES)

        await until(is_stored)


async def test_a_hive_that_hangs_and_is_then_stopped_by_an_administrator_stays_stopped(
    queen: MakeQueen,
) -> None:
    async with queen(interval=0.05, grace=0.05) as q:
        await q.add()
        q.hive.wire.is_cut = True
        await q.tape.until("hive-offline", "no heartbeat for 3 intervals")

        await q.systemd.stop_by_hand(HIVE_UNIT)

        async def is_stored() -> bool:
            return await q.row() == ("offline", False, DEVICES)

        await until(is_stored)


async def test_a_crash_loop_that_an_administrator_ends_stays_ended(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()
        await q.hive.kill()
        q.systemd.becomes(HIVE_UNIT, KILLED)
        await q.tape.until("hive-offline")

        await q.systemd.stop_by_hand(HIVE_UNIT)

        async def is_stored() -> bool:
            return await q.row() == ("offline", False, DEVICES)

        await until(is_stored)


async def test_a_hive_that_failed_too_often_is_reset_when_somebody_asks_for_it(queen: MakeQueen) -> None:
    async with queen() as q:
        q.systemd.states[HIVE_UNIT] = UnitState("loaded", "failed", "failed", result="start-limit-hit")
        await q.add()

        assert q.systemd.asked == [("reset-failed", HIVE_UNIT), ("start", HIVE_UNIT)]


async def test_a_queen_who_wakes_brings_back_the_hive_that_is_wanted(
    queen: MakeQueen, tmp_path: Path
) -> None:
    await a_row(tmp_path / "catalog.db", status="offline", wanted=True)
    async with queen() as q:
        await q.tape.until("hive-online")

        assert q.systemd.asked == [("start", HIVE_UNIT)]
        assert q.life()[0] == "online"
        assert await q.row() == ("online", True, DEVICES)


async def test_a_queen_who_wakes_leaves_a_hive_stopped_that_an_administrator_stopped(
    queen: MakeQueen, tmp_path: Path
) -> None:
    await a_row(tmp_path / "catalog.db", status="offline", wanted=False)
    async with queen() as q:
        await until(lambda: q.life() == ("offline", "stopped by an administrator"))

        assert q.systemd.asked == []
        assert q.tape.told == []


async def test_a_queen_who_wakes_does_not_touch_a_hive_that_runs(queen: MakeQueen, tmp_path: Path) -> None:
    await a_row(tmp_path / "catalog.db", status="online", wanted=True)
    systemd = PlayedSystemd()
    systemd.states[HIVE_UNIT] = ACTIVE
    async with queen(systemd=systemd, interval=0.05, grace=0.05) as q:
        await q.tape.until("hive-offline", "no heartbeat since the queen started")

        assert q.systemd.asked == []


async def test_a_wanted_hive_that_cannot_be_woken_is_offline_with_the_reason(
    queen: MakeQueen, tmp_path: Path
) -> None:
    await a_row(tmp_path / "catalog.db", status="online", wanted=True)
    systemd = PlayedSystemd(refusal=NotPermitted("systemd does not let you do this"))
    async with queen(systemd=systemd) as q:
        await q.tape.until("hive-offline", "systemd does not let you do this")

        async def is_stored() -> bool:
            return await q.row() == ("offline", True, DEVICES)

        await until(is_stored)


async def test_a_hive_that_was_just_to_be_woken_does_not_undo_a_shutdown(queen: MakeQueen) -> None:
    async with queen() as q:
        q.systemd.job(QUEEN_UNIT, "stop")

        assert type(error_of(await q.add())) is Stopping
        assert q.hive.starts == 0
