"""Work that may never come back, in threads that no exit waits for."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rbee.hive.threads import in_daemonic_thread

REPOSITORY = Path(__file__).parents[3]


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


def test_work_that_hangs_for_ever_does_not_keep_the_process_from_its_exit() -> None:
    code = """
import asyncio, threading
from rbee.hive.threads import in_daemonic_thread
async def main():
    try:
        await asyncio.wait_for(in_daemonic_thread(threading.Event().wait), 0.05)
    except TimeoutError:
        print("given up")
asyncio.run(main())
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=10, cwd=REPOSITORY
    )

    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "given up\n", "")


def test_work_that_ends_after_the_loop_does_so_silently() -> None:
    code = """
import asyncio, threading
from rbee.hive.threads import in_daemonic_thread
goes_on = threading.Event()
async def main():
    try:
        await asyncio.wait_for(in_daemonic_thread(goes_on.wait), 0.02)
    except TimeoutError:
        pass
asyncio.run(main())
(thread,) = [one for one in threading.enumerate() if one.daemon]
goes_on.set()
thread.join(5)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=10, cwd=REPOSITORY
    )

    assert (ran.returncode, ran.stderr) == (0, "")
