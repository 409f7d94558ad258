"""The end of a program: its output is whole, its status is its own, and nothing is taken apart."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]


def left(program: str, **options: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", f"import atexit, os, sys\nfrom rbee.leave import leave\n{program}"],
        stderr=subprocess.PIPE, text=True, cwd=REPOSITORY, check=False, timeout=20,
        env={**os.environ, "PYTHONUNBUFFERED": ""},
        **{"stdout": subprocess.PIPE, **options},
    )  # fmt: skip


def test_what_was_written_is_written_and_the_status_is_the_program_s() -> None:
    done = left("sys.stdout.write('x' * 100_000); sys.stderr.write('why'); leave(3)")

    assert (done.returncode, len(done.stdout), done.stderr) == (3, 100_000, "why")


def test_nothing_is_taken_apart_and_no_thread_is_waited_for() -> None:
    waits = "import threading; threading.Thread(target=threading.Event().wait).start()"

    done = left(f"atexit.register(print, 'taken apart'); {waits}; leave(0)")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_output_that_cannot_be_written_does_not_change_the_end() -> None:
    with open("/dev/full", "w") as full:
        done = left("sys.stdout.write('x'); leave(1)", stdout=full.fileno())
    assert (done.returncode, done.stderr) == (1, "")
    assert left("sys.stdout = None; sys.stderr.close(); leave(0)").returncode == 0
