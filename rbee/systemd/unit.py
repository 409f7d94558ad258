"""A unit: what it is doing, and having it started, stopped and awaited."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

from rbee.errors import BadConfig, JobReplaced, TimedOut, UnitFailed, with_packages
from rbee.scope import SYSTEM, Scope, package_of
from rbee.systemd.connection import SERVICE, SOCKET, UNIT, Connection
from rbee.systemd.daemon import NO_SOCKET, TRY
from rbee.systemd.exitstatus import cure_for_exit, describe_exit
from rbee.text import shown_span


class UnitState(NamedTuple):
    """The state of a unit, with systemd's names (org.freedesktop.systemd1(5)).

    `result` is empty for a unit that is neither service nor socket; of the fields after it,
    `condition_held` is only for sockets, the others only for services. `since_us` is the time of the last
    change of `active` or `sub`, in microseconds since 1970, 0 if it never changed.
    """

    load: str
    active: str
    sub: str
    since_us: int = 0
    result: str = ""
    status_text: str = ""
    main_pid: int = 0
    exit_status: int = 0
    condition_held: bool = False
    """Were a socket's Condition…= met when it was last to be started?"""
    restarts: int = 0
    """NRestarts: how often systemd has restarted it since somebody last started it."""
    invocation: str = ""
    """The InvocationID of its run, or of its last one; '' if it has not run."""

    @property
    def is_restarting(self) -> bool:
        """Does systemd restart it each time that it fails? Then it is never 'failed'."""
        if self.sub.startswith("auto-restart"):  # and 'auto-restart-queued', since systemd 254
            return True
        is_failing = self.active == "deactivating" and self.result not in ("", "success")
        return self.restarts > 0 and (self.active == "activating" or is_failing)

    @property
    def end(self) -> str:
        """How the last process ended, explained; '' if the result has nothing to add."""
        if self.result in ("signal", "core-dump"):
            return f"signal {self.exit_status}"
        # With another result the number may be a signal, which is below 200.
        if (self.result == "exit-code" and self.exit_status) or self.exit_status >= 200:
            return describe_exit(self.exit_status)
        return ""

    @property
    def has_reason(self) -> bool:
        """Does it have the reason of a failure? Properties are read one by one, and a restart clears some."""
        return bool(self.end) or self.result not in ("", "success", "exit-code")

    @property
    def is_active(self) -> bool:
        """Does it run, or listen?"""
        return self.active in ("active", "reloading")

    @property
    def is_stopped(self) -> bool:
        """Does it not run, after a failure or not?"""
        return self.active in ("inactive", "failed")


ATTEMPTS = 3
"""How often the properties of a service are read, if it is started each time meanwhile."""

DONE = ("done", "skipped")
"""The results of a job that did not fail."""


class Unit:
    """One of systemd's units."""

    def __init__(self, connection: Connection, name: str) -> None:
        self.name = name
        self._connection = connection

    # What it is

    def state(self) -> UnitState:
        """The unit's state now. A unit that does not exist has load 'not-found'."""
        read = _state_of_one_run if self.name.endswith(".service") else _state
        return read(self._connection, self.name)

    def active_state(self) -> str:
        """ActiveState only: one call instead of eleven."""
        return self._text(UNIT, b"ActiveState")

    def file_state(self) -> tuple[str, bool]:
        """UnitFileState ('enabled', 'masked-runtime', …; '' without a file) and NeedDaemonReload."""
        needs_reload: int = self._get(UNIT, b"NeedDaemonReload", b"b")
        return self._text(UNIT, b"UnitFileState"), bool(needs_reload)

    def socket_access(self) -> tuple[str, str, int]:
        """SocketUser=, SocketGroup= (empty: root) and SocketMode= of a socket unit."""
        return (
            self._text(SOCKET, b"SocketUser"),
            self._text(SOCKET, b"SocketGroup"),
            int(self._get(SOCKET, b"SocketMode", b"u")),
        )

    def listen_addresses(self) -> list[tuple[str, str]]:
        """Kind (Stream, …) and address ([::]:8500) of each Listen…= of a socket unit."""
        pairs: list[tuple[bytes, bytes]] = self._get(SOCKET, b"Listen", b"a(ss)")
        return [(kind.decode(), address.decode(errors="replace")) for kind, address in pairs]

    def has_job(self) -> bool:
        """Does systemd have a job for the unit, queued or running?"""
        job: tuple[int, bytes] = self._get(UNIT, b"Job", b"(uo)")
        return job[0] != 0

    def await_state(self, is_awaited: Callable[[UnitState], bool], *, timeout: float) -> UnitState:
        """Wait until the state `is_awaited`, and return it; after `timeout` seconds return the state then."""
        self._connection.on_unit_changed(self.name, lambda: None)
        deadline = time.monotonic() + timeout
        self._connection.pump()
        while True:
            state = self.state()
            left = deadline - time.monotonic()
            if is_awaited(state) or left <= 0:
                return state
            self._connection.wait(min(left, 0.05))

    def failing_state(self, *, timeout: float) -> UnitState:
        """The state of a unit that is being restarted, once it has the reason: during the next start its
        result is 'success'. After `timeout` seconds the state then."""
        return self.await_state(lambda one: one.has_reason or not one.is_restarting, timeout=timeout)

    # What is done to it

    def ask_start(self, *, undo_stop: bool = True) -> str:
        """StartUnit: queue the job and return its object path. It replaces a stop job; without `undo_stop`,
        Stopping is raised if this unit, or one that it needs, is being stopped."""
        return self._ask(b"StartUnit", "replace" if undo_stop else "fail", "starting")

    def ask_stop(self) -> str:
        """StopUnit: queue the job and return its object path."""
        return self._ask(b"StopUnit", "replace", "stopping")

    def ask_restart(self, *, undo_stop: bool = True) -> str:
        """RestartUnit: queue the job and return its object path; `undo_stop` as in ask_start()."""
        return self._ask(b"RestartUnit", "replace" if undo_stop else "fail", "restarting")

    def reset_failed(self) -> None:
        """ResetFailedUnit: the unit is not failed any more, and its starts are counted from 0 again."""
        self._connection.call(b"ResetFailedUnit", self.name, doing=f"resetting {self.name}")

    def start(self, *, timeout: float, undo_stop: bool = True) -> None:
        """Start the unit and await its job: for a Type=notify service, until READY=1.

        Raises UnitFailed if the job failed, TimedOut after `timeout` seconds, and without
        `undo_stop` Stopping if the unit is being stopped.
        """
        self._await_job(lambda: self.ask_start(undo_stop=undo_stop), timeout, "start")

    def stop(self, *, timeout: float) -> None:
        """Stop the unit and await its job; returns at once if it is not active.

        Raises UnitFailed if the job failed, TimedOut after `timeout` seconds.
        """
        self._await_job(self.ask_stop, timeout, "stop")

    def restart(self, *, timeout: float) -> None:
        """Stop the unit and start it in one job, so that no other start comes between; raises as stop()."""
        self._await_job(self.ask_restart, timeout, "restart")

    def _await_job(self, ask: Callable[[], str], timeout: float, doing: str) -> None:
        scope = self._connection.scope
        results: dict[str, str] = {}
        # The match comes before the job, or the job may be over before we listen.
        self._connection.on_job_removed(lambda job, unit, result: results.__setitem__(job, result))
        deadline = time.monotonic() + timeout
        job = ask()
        self._connection.pump()
        while job not in results:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimedOut(
                    f"{self.name} was not done after {shown_span(timeout)}",
                    hint=scope.systemctl(f"status {self.name}"),
                )
            self._connection.wait(left)
        check_job(self.name, results[job], self.state, doing, scope=scope)

    def _ask(self, method: bytes, mode: str, doing: str) -> str:
        job: bytes = self._connection.call(method, self.name, mode, doing=f"{doing} {self.name}")
        return job.decode()

    def _get(self, interface: bytes, name: bytes, kind: bytes) -> Any:
        return self._connection.get(self.name, interface, name, kind)

    def _text(self, interface: bytes, name: bytes) -> str:
        return self._connection.text(self.name, interface, name)


def _state_of_one_run(connection: Connection, name: str) -> UnitState:
    """Return the state of a service, read again if systemd has started it meanwhile.

    As properties are read one by one, it could have the state before the start and the exit status after it.
    """

    def invocation() -> str:
        return bytes(connection.get(name, UNIT, b"InvocationID", b"ay")).hex()

    before = invocation()
    for _ in range(ATTEMPTS):
        state = _state(connection, name)._replace(invocation=invocation())
        if state.invocation == before:
            break
        before = state.invocation
    return state


def _state(connection: Connection, name: str) -> UnitState:
    get, text = partial(connection.get, name), partial(connection.text, name)
    state = UnitState(
        load=text(UNIT, b"LoadState"),
        active=text(UNIT, b"ActiveState"),
        sub=text(UNIT, b"SubState"),
        since_us=get(UNIT, b"StateChangeTimestamp", b"t"),
    )
    # A masked socket that had failed before has no such interface any more.
    if name.endswith(".socket") and state.load == "loaded":
        held = bool(get(UNIT, b"ConditionResult", b"b"))
        return state._replace(result=text(SOCKET, b"Result"), condition_held=held)
    if not name.endswith(".service") or state.load != "loaded":
        return state
    return state._replace(
        result=text(SERVICE, b"Result"),
        status_text=text(SERVICE, b"StatusText"),
        main_pid=get(SERVICE, b"MainPID", b"u"),
        exit_status=get(SERVICE, b"ExecMainStatus", b"i"),
        restarts=get(SERVICE, b"NRestarts", b"u"),
    )


class Units(Protocol):
    """The units of a machine: of this one by its bus, or of another by ssh."""

    def state(self, unit: str) -> UnitState:
        """As Unit.state()."""

    def start(self, unit: str, *, timeout: float) -> None:
        """As Unit.start()."""

    def stop(self, unit: str, *, timeout: float) -> None:
        """As Unit.stop()."""

    def reset_failed(self, unit: str) -> None:
        """As Unit.reset_failed()."""


def check_job(
    unit: str,
    result: str,
    ask_state: Callable[[], UnitState],
    doing: str,
    *,
    cure: Callable[[str, UnitState], str] | None = None,
    scope: Scope = SYSTEM,
) -> None:
    """Raise UnitFailed, with systemd's result and the unit's status text, unless the job was done.

    `cure` makes the hint if the unit itself has none, for a unit of another machine.
    """
    if result in DONE:
        return
    state = ask_state()
    if result == "canceled" and state.load == "loaded":
        raise JobReplaced(
            f"{unit} did not {doing}: somebody else is stopping, starting or restarting it",
            hint=scope.systemctl(f"status {unit}"),
        )
    causes = [f"its job ended as '{result}'"]
    if state.result not in ("", "success"):
        causes = [f"its result is '{state.result}'{f' ({state.end})' if state.end else ''}"]
    said, *cures = said_by(state)
    if said:
        causes.append(f"it said: {said}")
    # At the start limit, the status text is still that of the last end.
    if state.result not in ("exit-code", "start-limit-hit") or said == NO_SOCKET:
        cures = []  # of an earlier end, or for a start by hand
    hint = "\n".join(cures) or (cure(unit, state) if cure else cure_of(unit, state, scope))
    failed = UnitFailed(f"{unit} did not {doing}: {', '.join(causes)}", hint=hint)
    # At the start limit, systemd keeps the status of the last end.
    if state.result in ("exit-code", "start-limit-hit"):
        failed.exit_status = state.exit_status
    raise failed


def unusable(error: UnitFailed) -> UnitFailed | BadConfig:
    """The same error as BadConfig, if the exit status is EX_CONFIG of sysexits(3)."""
    if error.exit_status == BadConfig.exit_code:
        return BadConfig(error.message, hint=error.hint)
    return error


def said_by(state: UnitState) -> list[str]:
    """The status text of a daemon that failed, and the cures in it (failure_in_a_line)."""
    return state.status_text.split(TRY)


def cure_of(unit: str, state: UnitState, scope: Scope = SYSTEM) -> str:
    """The hint, commands one a line, for a unit whose job failed."""
    if state.result in ("exit-code", "start-limit-hit") and (
        cure := cure_for_exit(state.exit_status, unit, scope)
    ):
        return cure
    if state.load == "masked" or state.result == "start-limit-hit" or NO_SOCKET in state.status_text:
        return scope.doctor
    if state.load == "not-found":
        return f"It is not installed; {with_packages(package_of(unit))}"
    status, journal = scope.systemctl(f"status {unit}"), scope.journalctl(f"-u {unit} -e")
    return f"{status}; {journal}\n{scope.doctor}"
