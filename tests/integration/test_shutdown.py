"""POST /shutdown: systemd stops everything, hives first; the queen's end is the story's."""

from __future__ import annotations

import asyncio
import time

import pytest

from rbee.errors import PROBLEM_PREFIX, NotPermitted
from rbee.scope import HIVE_UNIT, TARGET
from rbee.wire.jobs import JobStarted
from rbee.wire.routes import QueenRoutes
from tests.integration.house import ADD, House, Story, parse_story, soon, until
from tests.integration.test_stories import rest_of_stream

GOODBYE = "(bee hive) Received shutdown signal, goodbye"
HIVES = "(queen bee) Shutting down all hives"


def shut_down(house: House) -> Story:
    return house.story(QueenRoutes.SHUTDOWN)


async def test_the_story_of_a_shutdown_ends_with_done_when_the_queen_is_told_to_stop(house: House) -> None:
    queen = await house.added()

    story = shut_down(house)
    lines, end = await story.rest()

    assert lines == [HIVES, GOODBYE]
    assert (end.kind, end.data) == ("done", {"hive": None, "was_there": True, "model": None})
    await soon(queen.ended())
    assert house.systemd.state(HIVE_UNIT).active == "inactive"
    assert ("stop", TARGET) in house.systemd.asked
    assert house.journal.of(event="shutting-down-hives", job_id=story.job_id)
    assert house.journal.of(event="queen-stopping")
    row = house.row()
    assert row is not None
    assert row["wanted"] == 1


async def test_the_hive_says_goodbye_in_the_story_however_long_ago_it_was_added(house: House) -> None:
    await house.added()
    for _ in range(3):
        await house.hive.heart.beat()

    lines, _end = await shut_down(house).rest()

    assert lines == [HIVES, GOODBYE]


async def test_without_a_hive_the_story_has_no_goodbye(house: House) -> None:
    await house.wake_queen()

    lines, end = await shut_down(house).rest()

    assert (lines, end.kind) == ([HIVES], "done")


async def test_two_who_ask_for_a_shutdown_hear_one_story(house: House) -> None:
    await house.added()
    house.systemd.may_stop.clear()

    first = await shut_down(house).begins()
    second = await shut_down(house).begins()
    house.systemd.may_stop.set()

    assert first.job_id == second.job_id
    assert await first.rest() == await second.rest()
    # Asking again is systemd's to merge, and mends a stop that somebody undid in between.
    assert house.systemd.asked.count(("stop", TARGET)) == 2


async def test_the_answer_comes_before_the_shutdown_is_over(house: House) -> None:
    await house.added()
    house.systemd.may_stop.clear()

    started: JobStarted = await house.ask(QueenRoutes.SHUTDOWN)

    assert started.hive_id is None
    job = await house.ask(QueenRoutes.JOB, job_id=started.job_id)
    assert (job.kind, job.state) == ("shutdown", "running")


async def test_a_shutdown_that_systemd_refuses_ends_the_story_in_error_and_may_be_asked_for_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.added()

    def refuse(unit: str) -> str:
        raise NotPermitted(f"stopping {unit}: systemd does not let you do this", hint="ask root")

    with monkeypatch.context() as patch:
        patch.setattr(house.systemd, "ask_stop", refuse)
        lines, end = await shut_down(house).rest()
    assert lines == [
        HIVES,
        f"(queen bee) shutting down failed: stopping {TARGET}: systemd does not let you do this",
    ]
    assert (end.kind, end.data["type"]) == ("error", PROBLEM_PREFIX + "not-permitted")
    assert (await house.view()).state == "online"

    lines, end = await shut_down(house).rest()
    assert (lines, end.kind) == ([HIVES, GOODBYE], "done")


async def test_another_job_that_runs_ends_in_error_because_the_queen_stops(house: House) -> None:
    queen = await house.wake_queen()
    house.systemd.may_start.clear()
    adding = house.add()
    await adding.to("waking up")

    story = shut_down(house)

    lines, end = await adding.rest()
    assert (lines, end.kind) == ([], "error")
    assert end.data["type"] == PROBLEM_PREFIX + "stopping"
    assert end.data["hint"]
    assert (await story.end()).kind == "done"
    await soon(queen.ended())


async def test_streams_end_at_once_with_an_end_when_the_queen_is_told_to_stop(house: House) -> None:
    queen = await house.wake_queen()
    house.systemd.may_start.clear()
    job = await house.ask(QueenRoutes.ADD_HIVE, ADD)
    async with house.reader(job) as first, house.reader(job) as second:
        for reader in (first, second):
            await soon(reader.readuntil(b"\n\n"))

        told = time.monotonic()
        queen.told_to_stop.set()
        ends = [parse_story(await rest_of_stream(reader))[-1] for reader in (first, second)]
        took = time.monotonic() - told

    assert [end.kind for end in ends] == ["error", "error"]
    assert took < 2
    await soon(queen.ended())
    assert time.monotonic() - told < 4


async def test_a_reader_who_does_not_read_cannot_hold_up_the_queen(house: House) -> None:
    queen = await house.wake_queen()
    house.systemd.may_start.clear()
    job = await house.ask(QueenRoutes.ADD_HIVE, ADD)
    async with house.reader(job) as reader:
        await soon(reader.readuntil(b"\n\n"))
        reader._transport.pause_reading()  # type: ignore[attr-defined]

        told = time.monotonic()
        await queen.stop()

        assert time.monotonic() - told < 4


async def test_a_request_that_hangs_cannot_hold_up_the_queen(house: House) -> None:
    queen = await house.wake_queen()
    house.detect_after(house.gate())
    story = house.add()
    await story.to("unknown capabilities")

    told = time.monotonic()
    await queen.stop()

    assert time.monotonic() - told < 4
    assert (await story.end()).data["type"] == PROBLEM_PREFIX + "stopping"


async def test_after_the_shutdown_a_new_queen_takes_up_where_the_old_one_was(house: House) -> None:
    queen = await house.added()
    await shut_down(house).end()
    await soon(queen.ended())

    await house.wake_queen()

    hive = await house.is_in("online")
    assert hive.wanted


async def test_a_hive_that_is_told_to_stop_answers_and_then_ends(house: House) -> None:
    await house.added()

    answer = await house.send("POST", "/shutdown", to=house.hive_path)

    assert (answer.status, answer.json) == (202, {"status": "stopping"})
    await house.hive.ended()
    assert house.journal.of(event="goodbye")


async def test_requests_while_the_queen_stops_leave_nothing_behind(house: House) -> None:
    queen = await house.added(heartbeat_interval=0.1)
    house.systemd.may_stop.clear()
    story = await shut_down(house).begins()
    await story.line()

    asking = [asyncio.create_task(house.view()) for _ in range(5)]
    house.systemd.may_stop.set()
    await asyncio.gather(*asking, return_exceptions=True)

    assert (await story.end()).kind == "done"
    await until(lambda: not queen.is_running)
