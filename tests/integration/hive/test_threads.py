"""Work that may never come back, in threads that no exit of a process waits for."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[3]


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
