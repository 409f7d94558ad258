"""Tasks that nobody awaits: none is lost, and none outlives the queen."""

from __future__ import annotations

import asyncio

import pytest

from rbee.queen.tasks import Tasks
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(5)


async def test_a_task_runs_without_anybody_who_waits() -> None:
    tasks, done = Tasks(), asyncio.Event()

    async def work() -> None:
        done.set()

    tasks.begin(work())
    await done.wait()
    await tasks.end()


async def test_one_that_fails_is_logged_with_its_traceback_and_ends_no_other(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks, goes_on, done = Tasks(), asyncio.Event(), asyncio.Event()

    async def fail() -> None:
        raise ZeroDivisionError

    async def work() -> None:
        await goes_on.wait()
        done.set()

    tasks.begin(work())
    tasks.begin(fail())
    await until(lambda: bool(caplog.records))
    goes_on.set()
    await done.wait()
    await tasks.end()

    (record,) = caplog.records
    assert record.getMessage() == "a task of the queen failed"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


async def test_the_end_cancels_what_runs_and_waits_for_what_it_still_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks, story = Tasks(), []

    async def work() -> None:
        try:
            story.append("began")
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            story.append("ended")

    tasks.begin(work())
    await asyncio.sleep(0)
    await tasks.end()

    assert story == ["began", "ended"]
    assert caplog.records == [], "to be cancelled is no failure"


async def test_once_it_is_closed_nothing_begins() -> None:
    tasks, story = Tasks(), []

    async def work() -> None:
        story.append("began")

    tasks.close()
    tasks.begin(work())
    await asyncio.sleep(0)

    assert tasks.is_closed
    assert story == []
