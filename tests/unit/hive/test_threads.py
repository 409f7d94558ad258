"""Work that may never come back, in threads that no exit waits for."""

from __future__ import annotations

import asyncio
import threading

import pytest

from rbee.hive.threads import in_daemonic_thread


async def test_work_in_a_thread_gives_its_result_or_its_error() -> None:
    def fail() -> None:
        raise ZeroDivisionError

    assert await in_daemonic_thread(lambda: None) is None
    assert await in_daemonic_thread(lambda: 7) == 7
    with pytest.raises(ZeroDivisionError):
        await in_daemonic_thread(fail)


async def test_work_that_was_given_up_may_end_later_without_harm() -> None:
    goes_on, ended = threading.Event(), threading.Event()

    def work() -> int:
        goes_on.wait(5)
        ended.set()
        return 7

    with pytest.raises(TimeoutError):
        await asyncio.wait_for(in_daemonic_thread(work), 0.02)
    goes_on.set()
    await asyncio.to_thread(ended.wait, 5)
    await asyncio.sleep(0)
