"""Shows a step of the demonstration, and checks its result."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from testbed.machine import Machine


class StepFailed(Exception):
    """A step of the demonstration failed; the message says which and how."""


def say(line: str) -> None:
    """Prints a line at once."""
    print(line, flush=True)


def done(what: str, began: float | None = None) -> None:
    """Reports a finished step, and its time if `began` is given (time.monotonic())."""
    say(f"✅ {what}" + (f" ({time.monotonic() - began:.1f} s)" if began is not None else ""))


def prompt(machine: Machine, user: str, command: str) -> None:
    """Shows a command as it is typed on a machine."""
    host = machine.run("hostname").stdout.strip()
    say(f"   {user}@{host}:~{'#' if user == 'root' else '$'} {command}")


def show(machine: Machine, *argv: str, user: str | None = None, timeout: float = 60) -> str:
    """Runs a command in a machine, and shows it and its output; StepFailed if it fails."""
    prompt(machine, user or "root", " ".join(argv))
    process = machine.popen("sh", "-c", 'exec "$@" 2>&1', "sh", *argv, user=user)
    assert process.stdout
    output = ""
    with overdue(timeout, lambda: machine.signal(process, signal.SIGKILL)):
        for line in process.stdout:
            say(f"   {line.rstrip()}")
            output += line
        code = process.wait()
    if code:
        raise StepFailed(f"{' '.join(argv)}: exit code {code}")
    return output


@contextmanager
def overdue(seconds: float, act: Callable[[], None]) -> Iterator[None]:
    """Calls `act` if the body takes longer."""
    timer = threading.Timer(seconds, act)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def expect_states(machine: Machine, state: str, units: tuple[str, ...]) -> None:
    """StepFailed unless all units are in this state."""
    for unit in units:
        is_now = machine.run("systemctl", "is-active", unit, check=False).stdout.strip()
        if is_now != state:
            raise StepFailed(f"{unit} should be {state}, and is {is_now}.")
