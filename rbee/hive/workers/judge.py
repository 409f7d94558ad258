"""What the state of a worker's unit means for the worker."""

from __future__ import annotations

import re
import signal
from typing import NamedTuple

from rbee.errors import BadConfig
from rbee.scope import Scope, worker_unit
from rbee.systemd.unit import UnitState, said_by
from rbee.wire.workers import StartWorker, WorkerState

LOADING = re.compile(r"loading ([0-9]{1,3}) %")

NAMESPACE, CREDENTIALS, EXEC = 226, 243, 203
"""Exit statuses of systemd itself, see systemd.exec(5)."""


RESTART_DELAY = 2
"""RestartSec= of the unit; the launcher waits for the rest of delay_of()."""

STARTS_MAX = 4
"""StartLimitBurst= of the unit, within half an hour; systemd does not tell how many of them are left."""

DOUBLINGS = 3
"""How often the delay doubles: to 16 s, of which the launcher waits for less than its WAIT_MAX."""


class Verdict(NamedTuple):
    """The state of a worker, and its reason."""

    state: WorkerState
    reason: str = ""
    percent: float | None = None
    pid: int | None = None
    is_file_missing: bool = False
    is_file_found: bool = False
    """Whether systemd has bound the file; both are False if it did not come to that."""


def judge(unit: UnitState, start: StartWorker, last_end: str, scope: Scope) -> Verdict | None:
    """Return what a unit's state means for its worker; None for a transient state, which is ignored.

    `last_end` is how the engine ended last, which systemd forgets when it restarts the unit.
    """
    if unit.is_active:
        return Verdict("ready", pid=unit.main_pid or None)
    if unit.sub.startswith("auto-restart"):
        next_start = f"it is started again in {delay_of(unit.restarts)} s"
        if unit.restarts + 1 >= STARTS_MAX:
            next_start += f", unless it was started {STARTS_MAX} times in the last half hour"
        return Verdict("loading", f"{end_of(unit, start, scope)}; {next_start}")
    if unit.active == "activating":
        match = LOADING.match(unit.status_text)
        percent = min(float(match[1]), 100.0) if match else None
        return Verdict("loading", again(unit, last_end), percent, unit.main_pid or None)
    if unit.active == "deactivating":
        return Verdict("stopping", pid=unit.main_pid or None) if unit.result == "success" else None
    if unit.active == "failed":
        end = end_of(unit, start, scope, last_end)
        is_limit = unit.result == "start-limit-hit"
        reason = f"given up after several starts: {end}" if unit.restarts or is_limit else end
        is_missing = unit.exit_status == NAMESPACE
        return Verdict("failed", reason, is_file_missing=is_missing, is_file_found=_has_run(unit))
    return Verdict("stopped")


def _has_run(unit: UnitState) -> bool:
    """Has the last process of a failed unit come as far as its program? A status from 200 on is systemd's."""
    return unit.result not in ("resources", "assert", "exec-condition") and unit.exit_status < 200


def delay_of(restarts: int) -> int:
    """Return the seconds between an end and the next start, with so many restarts before: 2, 4, 8, 16."""
    return RESTART_DELAY << min(restarts, DOUBLINGS)


def again(unit: UnitState, last_end: str) -> str:
    """Return the reason of a worker that loads: how it ended before, '' if it did not."""
    return f"start {unit.restarts + 1}: {last_end}" if unit.restarts and last_end else ""


def end_of(unit: UnitState, start: StartWorker, scope: Scope, last_end: str = "") -> str:
    """Return how the engine of a failed unit ended, with the cure if there is one."""
    status = unit.exit_status
    if unit.result == "start-limit-hit":
        return last_end or _by_status(unit, start, scope)
    if unit.result == "oom-kill":
        return f"out of memory: the kernel killed it; see {scope.rbeectl(f'place {start.model} --dry-run')}"
    if unit.result == "timeout":
        return "it did not become ready in time: it neither read nor computed"
    # Of a signal such as SIGTERM systemd takes an end for a success; other statuses than 0 it does not.
    if unit.result in ("signal", "core-dump") or (unit.result == "success" and status):
        return f"the engine {start.engine} ended by {_signal(status)}"
    if unit.result == "resources":
        see = scope.journalctl(f"-u {worker_unit(start.id)} -e")
        return f"systemd could not start it; see on its hive's machine: {see}"
    return _by_status(unit, start, scope)


def _by_status(unit: UnitState, start: StartWorker, scope: Scope) -> str:
    status = unit.exit_status
    if status == NAMESPACE:
        shown = scope.rbeectl(f"model show {start.model}")
        return f"the model's file {start.path} is gone, or on a disk that is not mounted; see {shown}"
    if status == EXEC:
        return f"the program rbee-worker is missing; run on its hive's machine: {scope.doctor}"
    if status == CREDENTIALS:
        return f"systemd could not set up its credentials; run on its hive's machine: {scope.doctor}"
    if status == BadConfig.exit_code and unit.status_text:
        return "; try: ".join(said_by(unit))  # the launcher's message
    when = " before it was ready" if unit.result == "protocol" else ""
    return f"the engine {start.engine} ended with exit status {status}{when}"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
