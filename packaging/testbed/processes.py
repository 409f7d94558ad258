"""Processes of this computer: waited for, signalled and ended, those in a machine too."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def undisturbed() -> Iterator[None]:
    """A second Ctrl-C waits until what the first one began has been cleaned up."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def watched(process: subprocess.Popen[bytes]) -> Iterator[int]:
    """A file descriptor that becomes readable when the process ends."""
    watch = os.pidfd_open(process.pid)
    try:
        yield watch
    finally:
        os.close(watch)


def tied_to_us() -> list[str]:
    """A command prefix by which the machine ends even if we are killed; [] except in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        return []
    return ["setpriv", "--pdeathsig=TERM", "--"]


def children(pid: int) -> list[int]:
    """The pids of its children."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def members(group: int) -> list[int]:
    """The pids of a process group, without zombies."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            # proc_pid_stat(5): the name, in parentheses, may have blanks; then the state, parent and group.
            state, _, theirs, *_ = (process / "stat").read_text().rpartition(")")[2].split()
            if int(theirs) == group and state not in "ZX":
                found.append(int(process.name))
    return found


def kill_inside(process: subprocess.Popen[str]) -> None:
    """Kills the command, then what is left of its group.

    Not the shell that waits for it: the command's remains would then fall to this computer's PID 1, which
    in a container may never reap, and a machine cannot end before all its processes are reaped.
    """
    while process.poll() is None:
        for command in children(process.pid):
            with suppress(ProcessLookupError):
                os.kill(command, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)  # again, if it was not started yet
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def end(process: subprocess.Popen[bytes]) -> None:
    """Kills a process and waits for it."""
    process.kill()
    process.communicate()
