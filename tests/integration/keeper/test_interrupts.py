"""A signal ends rbeectl at any moment: what it was doing is cleaned up, and there is no traceback."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[3]

ENDING = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP]

PROGRAM = """
import signal, sys
from rbee.keeper.interrupts import interruptible

def send():
    signal.raise_signal({number})

{main}

sys.exit(interruptible(main))
"""


def run(main: str, number: int = signal.SIGINT, *, ignored: int | None = None) -> tuple[int, str, str]:
    """The exit code, output and messages of a program whose main() sends itself a signal by send()."""

    def dispose() -> None:
        # Whatever the tests themselves were started with.
        for one in ENDING:
            signal.signal(one, signal.SIG_IGN if one == ignored else signal.SIG_DFL)

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(main=main, number=int(number))],
        capture_output=True, text=True, cwd=REPOSITORY, check=False, preexec_fn=dispose,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


CLEANING = """
def main():
    try:
        send()
    finally:
        print("clean", flush=True)
"""

REPORTING = """
def main():
    try:
        raise ValueError
    except ValueError:
        send()
"""

AFTERWARDS = """
import atexit
atexit.register(send)
def main():
    return 0
"""

WRAPPED = """
def main():
    try:
        send()
    except KeyboardInterrupt as error:
        raise RuntimeError("Error calling __set_name__") from error
"""

DROPPED = """
class Finalized:
    def __del__(self):
        send()
def main():
    Finalized()
    print("went on", flush=True)
"""

TWICE = """
def main():
    try:
        send()
    finally:
        send()
        print("went on", flush=True)
"""


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_has_the_verb_clean_up_and_is_what_the_process_dies_of(number: int) -> None:
    assert run(CLEANING, number) == (-number, "clean\n", "")


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("main", [REPORTING, AFTERWARDS, WRAPPED, DROPPED, TWICE])
def test_at_no_moment_is_there_a_traceback_or_does_the_verb_go_on(main: str, number: int) -> None:
    assert run(main, number) == (-number, "", "")


@pytest.mark.parametrize("number", ENDING)
def test_a_signal_that_is_ignored_stays_so(number: int) -> None:
    code, out, err = run(
        "def main():\n    send()\n    print('went on')\n    return 3", number, ignored=number
    )

    assert (code, out, err) == (3, "went on\n", "")


def test_a_verb_that_ctrl_c_is_the_end_of_keeps_its_exit_code() -> None:
    ends = "def main():\n    try:\n        send()\n    except KeyboardInterrupt:\n        return 0"

    assert run(ends) == (0, "", "")
    assert run(ends, signal.SIGTERM) == (-signal.SIGTERM, "", "")


def test_an_internal_error_keeps_its_traceback() -> None:
    code, _, err = run("def main():\n    raise SystemError('oh')")

    assert code == 1
    assert err.endswith("SystemError: oh\n")
