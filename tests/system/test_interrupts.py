"""A verb of rbeectl is interrupted at any moment from its first on: no traceback, and nothing half-done."""

from __future__ import annotations

import json
from typing import Any

from testbed.machine import Machine

from tests.system.commands import add_hive, rbeectl, rows

SWEEP = """
import json, os, pty, select, signal, subprocess, sys, termios, time
count, step, number, command = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4:]
os.environ.update(TERM="xterm", SYSTEMD_PAGER="")

def run(delay):
    terminal, other = pty.openpty()
    before = termios.tcgetattr(other)
    running, started = os.pipe()  # closed when the command is executed
    pid = os.fork()
    if pid == 0:
        os.login_tty(other)
        os.execvp(command[0], command)
    os.close(started)
    os.read(running, 1)
    os.close(running)
    seen = b""
    # No event marks the moments of Python's own start and end: only a delay gets there.
    ends = time.monotonic() + delay
    while (left := ends - time.monotonic()) > 0:
        if select.select([terminal], [], [], left)[0]:
            seen += os.read(terminal, 65536)
    if number == signal.SIGINT:
        os.write(terminal, b"\\x03")
    else:
        os.kill(pid, number)
    # Read on, as it waits for who does not; `other` is open here, so that there is always an end to it.
    ended = os.pidfd_open(pid)
    while ended not in (ready := select.select([terminal, ended], [], [])[0]):
        seen += os.read(terminal, 65536)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    while select.select([terminal], [], [], 0)[0]:
        seen += os.read(terminal, 65536)
    is_sane = termios.tcgetattr(other) == before
    for number_ in (terminal, other, ended):
        os.close(number_)
    return {"delay": delay, "code": code, "seen": seen.decode(errors="replace"), "is_sane": is_sane}

print(json.dumps([run(turn * step) for turn in range(count)]))
"""
"""Runs a command on a terminal again and again, and sends it a signal later each time."""

INT, TERM, HUP = 2, 15, 1


def sweep(
    machine: Machine, *command: str, count: int, step: float, number: int = INT, user: str | None = "ada"
) -> list[dict[str, Any]]:
    """How each run ended; `step` is the seconds by which each signal comes later than the one before."""
    done = machine.run(
        "python3", "-c", SWEEP, str(count), str(step), str(number), *command, user=user, timeout=120
    )
    runs: list[dict[str, Any]] = json.loads(done.stdout)
    for run in runs:
        for trace in ("Traceback", "KeyboardInterrupt", "Exception ignored", "Fatal Python error"):
            assert trace not in run["seen"], run
        assert run["code"] in (0, -number), run
        assert run["is_sane"], run
    return runs


def test_ctrl_c_while_python_starts_just_ends_it(machine: Machine) -> None:
    # It came before the first instruction, and is delivered when env(1) no longer holds it back.
    blocked = (
        "import os, signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT]);"
        "os.kill(os.getpid(), signal.SIGINT); os.execvp('rbeectl', ['rbeectl', '--version'])"
    )
    done = machine.run("python3", "-c", blocked, user="ada", check=False)

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
    assert {run["code"] for run in sweep(machine, "rbeectl", "list-hives", count=40, step=0.0005)} == {-INT}


def test_a_script_s_background_keeps_what_ignores_ctrl_c(machine: Machine) -> None:
    ignoring = "trap '' INT; rbeectl monitor & until pgrep -x rbeectl >/dev/null; do sleep 0.01; done; "
    ignoring += "grep SigIgn /proc/$!/status; kill $!"

    mask = int(machine.run("sh", "-c", ignoring, user="ada").stdout.split()[1], 16)

    assert mask & 1 << INT - 1


def test_a_verb_that_looks_is_interrupted_at_any_moment(machine: Machine) -> None:
    add_hive(machine)

    for number in (INT, TERM, HUP):
        sweep(machine, "rbeectl", "list-hives", count=25, step=0.005, number=number)
    sweep(machine, "rbeectl", "top", count=25, step=0.008)


def test_a_verb_that_changes_is_interrupted_at_any_moment_and_then_works(machine: Machine) -> None:
    add_hive(machine)
    for verb in (["remove-hive", "localhost"], ["add-hive", "localhost"], ["sleep"], ["wake"], ["shutdown"]):
        sweep(machine, "rbeectl", *verb, count=8, step=0.02)
    sweep(machine, "rbeectl", "tcp", "enable", count=8, step=0.03)
    sweep(machine, "rbeectl", "catalog", "backup", "--force", "/tmp/backup.db", count=20, step=0.008)

    assert rbeectl(machine, "remove-hive", "localhost").code == 0
    add_hive(machine)
    assert [row["id"] for row in rows(machine)] == ["localhost"]
    doctor = rbeectl(machine, "doctor", user=None)
    assert doctor.code == 0, doctor.out
    assert machine.run("sh", "-c", "ls -A /tmp | grep -F .backup.db. || true").stdout == ""
    assert machine.run("systemctl", "--failed", "--no-legend").stdout == ""


def test_output_that_cannot_be_written_is_an_error(machine: Machine) -> None:
    add_hive(machine)

    for argv in (["list-hives"], ["status", "--json"], ["logs"], ["doctor"], ["token", "list"]):
        done = machine.run("sh", "-c", 'rbeectl "$@" >&-', "sh", *argv, check=False)
        answer = (done.returncode, done.stderr)
        assert answer == (1, "rbeectl: the output could not be written: Bad file descriptor\n"), argv
