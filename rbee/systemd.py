"""The only speaker to systemd: units and their jobs over D-Bus, handed-over sockets, sd_notify.

Nobody above this file sees a bus error: each becomes one of ours, with its cure. pystemd
calls hold the interpreter's lock, so every call is bounded by BUS_TIMEOUT and waiting is
done on the bus's descriptor, never inside the library.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from rbee.contracts import MachineEnd
from rbee.errors import (
    BadConfig,
    JobReplaced,
    NotPermitted,
    RbeeError,
    Stopping,
    TimedOut,
    UnitFailed,
    Unreachable,
    with_packages,
)
from rbee.exitstatus import cure_for_exit, describe_exit
from rbee.text import printable, shortened, shown_span

Result = TypeVar("Result")

QUEEN_UNIT = "queen-rbee.service"
QUEEN_SOCKET_UNIT = "queen-rbee.socket"
HIVE_UNIT = "rbee-hive.service"
HIVE_SOCKET_UNIT = "rbee-hive.socket"
TARGET = "rbee.target"
REDIAL_UNIT = "rbee-hive-redial.service"
JOIN_UNIT = "rbee-hive-join.service"
TCP_SOCKET_UNIT = "queen-rbee-tcp.socket"
TCP_RETRY_UNIT = "queen-rbee-tcp-retry.service"
FORGET_UNIT = "queen-rbee-forget.service"

REBOOTS = ("reboot.target", "kexec.target", "soft-reboot.target")
"""Whichever is started, the machine is back afterwards (systemd.special(7))."""

BUS_TIMEOUT = 3.0
"""Seconds that one D-Bus call may take. The services' TimeoutStopSec= and WatchdogSec= are longer."""

SYSTEMD = "org.freedesktop.systemd1"

STATUS_LIMIT = 500
"""Characters of a unit's status text; of a longer one beginning and end are kept, which say what and why."""

NO_SOCKET = "systemd handed over no socket"
"""What a daemon says that was started without systemd, or by a socket unit that has lost its socket."""

DOCTOR = "sudo rbeectl doctor"
"""The hint where a look at the whole machine is better advice than any single command."""

_SYSTEMD = SYSTEMD.encode()
_MANAGER_PATH = b"/org/freedesktop/systemd1"
_MANAGER = b"org.freedesktop.systemd1.Manager"
_UNIT = b"org.freedesktop.systemd1.Unit"
_SERVICE = b"org.freedesktop.systemd1.Service"
_SOCKET = b"org.freedesktop.systemd1.Socket"
_STRING = ord("s")


@dataclass(frozen=True, slots=True)
class UnitState:
    """What systemd says of a unit, in systemd's words (org.freedesktop.systemd1(5)).

    `result` is empty for a unit that is neither service nor socket, the rest after it for one
    that is no service; `since_us` is the wall clock, in microseconds, of the last change of
    `active`, 0 if it never changed.
    """

    load: str
    active: str
    sub: str
    since_us: int = 0
    result: str = ""
    status_text: str = ""
    main_pid: int = 0
    exit_status: int = 0
    restarts: int = 0
    """NRestarts: how often systemd has restarted it since somebody last started it."""

    @property
    def is_restarting(self) -> bool:
        """Does systemd bring it up again and again, as it fails? Then it is never 'failed'."""
        if self.sub.startswith("auto-restart"):  # and 'auto-restart-queued', since systemd 254
            return True
        is_failing = self.active == "deactivating" and self.result not in ("", "success")
        return self.restarts > 0 and (self.active == "activating" or is_failing)

    @property
    def end(self) -> str:
        """How the last process ended, with what systemd means by it; '' where the result says it all."""
        if self.result in ("signal", "core-dump"):
            return f"signal {self.exit_status}"
        # Of the other results the number may be a signal's, which is never so high.
        if (self.result == "exit-code" and self.exit_status) or self.exit_status >= 200:
            return describe_exit(self.exit_status)
        return ""

    @property
    def has_reason(self) -> bool:
        """Does it say what it failed of? Properties come one by one, and a restart in between clears some."""
        return bool(self.end) or self.result not in ("", "success", "exit-code")

    @property
    def is_active(self) -> bool:
        return self.active in ("active", "reloading")

    @property
    def is_stopped(self) -> bool:
        return self.active in ("inactive", "failed")


class Units(Protocol):
    """The units of a machine: of this one by its bus, or of another."""

    def state(self, unit: str) -> UnitState: ...

    def start(self, unit: str, *, timeout: float) -> None: ...

    def stop(self, unit: str, *, timeout: float) -> None: ...

    def reset_failed(self, unit: str) -> None: ...


class Bus:
    """A connection to the system bus, opened as a context; for one thread."""

    def __init__(self) -> None:
        self._bus: Any = None
        self._callbacks: list[Any] = []

    def __enter__(self) -> Self:
        bus = _dbus_class()()
        with _translated("connecting to the system bus"):
            _uninterrupted(bus.open)
        self._bus = bus
        try:
            self._await_greeting()
        except BaseException:
            bus.close()
            raise
        return self

    def _await_greeting(self) -> None:
        """Until the bus has given us a name: of a daemon that hangs, sd-bus itself waits 90 s for that."""
        deadline = time.monotonic() + BUS_TIMEOUT
        with _translated("connecting to the system bus"):
            # The first message for us is NameAcquired. The library waits here and not we on the
            # descriptor: it also knows what it has still to send, its Hello for instance.
            while self._bus.process().is_empty():
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimedOut(f"the system bus did not greet us within {BUS_TIMEOUT:g} s", hint=DOCTOR)
                _uninterrupted(partial(self._bus.wait, int(left * 1_000_000)))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bus.close()

    def state(self, unit: str) -> UnitState:
        """What the unit is doing now. A unit that is not there has load 'not-found'."""
        with _translated(f"asking for {unit}"):
            state = UnitState(
                load=self._text(unit, _UNIT, b"LoadState"),
                active=self._text(unit, _UNIT, b"ActiveState"),
                sub=self._text(unit, _UNIT, b"SubState"),
                since_us=self._get(unit, _UNIT, b"StateChangeTimestamp", b"t"),
            )
            # A masked socket that had failed before has no such interface any more.
            if unit.endswith(".socket") and state.load == "loaded":
                return replace(state, result=self._text(unit, _SOCKET, b"Result"))
            if not unit.endswith(".service") or state.load != "loaded":
                return state
            return replace(
                state,
                result=self._text(unit, _SERVICE, b"Result"),
                status_text=self._text(unit, _SERVICE, b"StatusText"),
                main_pid=self._get(unit, _SERVICE, b"MainPID", b"u"),
                exit_status=self._get(unit, _SERVICE, b"ExecMainStatus", b"i"),
                restarts=self._get(unit, _SERVICE, b"NRestarts", b"u"),
            )

    def active_state(self, unit: str) -> str:
        """ActiveState alone: one call instead of nine, for who only wants to know whether."""
        with _translated(f"asking for {unit}"):
            return self._text(unit, _UNIT, b"ActiveState")

    def file_state(self, unit: str) -> tuple[str, bool]:
        """UnitFileState ('enabled', 'masked-runtime', …; '' where there is no file) and NeedDaemonReload."""
        with _translated(f"asking for {unit}"):
            needs_reload: int = self._get(unit, _UNIT, b"NeedDaemonReload", b"b")
            return self._text(unit, _UNIT, b"UnitFileState"), bool(needs_reload)

    def socket_access(self, unit: str) -> tuple[str, str, int]:
        """SocketUser=, SocketGroup= (empty: root) and SocketMode= of a socket unit."""
        with _translated(f"asking for {unit}"):
            return (
                self._text(unit, _SOCKET, b"SocketUser"),
                self._text(unit, _SOCKET, b"SocketGroup"),
                int(self._get(unit, _SOCKET, b"SocketMode", b"u")),
            )

    def listen_addresses(self, unit: str) -> list[tuple[str, str]]:
        """Kind (Stream, …) and address ([::]:8500) of each Listen…= of a socket unit."""
        with _translated(f"asking for {unit}"):
            pairs: list[tuple[bytes, bytes]] = self._get(unit, _SOCKET, b"Listen", b"a(ss)")
        return [(kind.decode(), address.decode(errors="replace")) for kind, address in pairs]

    def ping(self, name: str) -> None:
        """Have the owner of a bus name answer; one that can be activated is."""
        path = b"/" + name.replace(".", "/").encode()
        with _translated(f"asking {name}"):
            _uninterrupted(
                lambda: self._bus.call_method(name.encode(), path, b"org.freedesktop.DBus.Peer", b"Ping", [])
            )

    def await_idle(self, units: Iterable[str], *, timeout: float) -> None:
        """Until systemd has no job for any of these units; TimedOut after `timeout` seconds."""
        self.on_job_removed(lambda job, result: None)
        deadline = time.monotonic() + timeout
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        self.pump()
        while any(self.has_job(unit) for unit in units):
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimedOut(
                    f"systemd was not done after {shown_span(timeout)}", hint="systemctl list-jobs"
                )
            # A reply may have brought the signal along, which the descriptor then does not show.
            poll.poll(min(left, 0.5) * 1000)
            self.pump()

    def failing_state(self, unit: str, *, timeout: float) -> UnitState:
        """The state of a unit that is being restarted, once it tells what it failed of: while the next try
        is under way its result is 'success'. After `timeout` seconds whatever it is then."""
        return self.await_state(unit, lambda one: one.has_reason or not one.is_restarting, timeout=timeout)

    def await_state(self, unit: str, is_awaited: Callable[[UnitState], bool], *, timeout: float) -> UnitState:
        """What the unit is, once it is as it `is_awaited`; after `timeout` seconds whatever it is then."""
        self.on_unit_changed(unit, lambda: None)
        deadline = time.monotonic() + timeout
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        while True:
            self.pump()
            state = self.state(unit)
            left = deadline - time.monotonic()
            if is_awaited(state) or left <= 0:
                return state
            # A reply may have brought the signal along, which the descriptor then does not show.
            poll.poll(min(left, 0.05) * 1000)

    def has_job(self, unit: str) -> bool:
        """Does systemd have a job for the unit, queued or running?"""
        with _translated(f"asking for {unit}"):
            job: tuple[int, bytes] = self._get(unit, _UNIT, b"Job", b"(uo)")
            return job[0] != 0

    def ask_start(self, unit: str) -> str:
        """StartUnit: queue the job and return its object path; it takes the place of a job to stop."""
        return self._ask(b"StartUnit", unit, b"replace", f"starting {unit}")

    def ask_start_unless_stopping(self, unit: str) -> str:
        """StartUnit, but Stopping where somebody has this unit, or one it needs, stopped."""
        return self._ask(b"StartUnit", unit, b"fail", f"starting {unit}")

    def ask_stop(self, unit: str) -> str:
        """StopUnit: queue the job and return its object path."""
        return self._ask(b"StopUnit", unit, b"replace", f"stopping {unit}")

    def ask_restart(self, unit: str) -> str:
        """RestartUnit: queue the job and return its object path; it takes the place of a job to stop."""
        return self._ask(b"RestartUnit", unit, b"replace", f"restarting {unit}")

    def ask_restart_unless_stopping(self, unit: str) -> str:
        """RestartUnit, but Stopping where somebody has the unit stopped."""
        return self._ask(b"RestartUnit", unit, b"fail", f"restarting {unit}")

    def machine_end(self) -> MachineEnd | None:
        """What the machine does, if systemd is about to stop everything; None while it runs on."""
        state = self._asked_of_manager(b"SystemState")
        if state != "stopping":
            return None
        return "rebooting" if any(self.has_job(unit) for unit in REBOOTS) else "shutting-down"

    def _asked_of_manager(self, name: bytes) -> str:
        with _translated("asking systemd how the machine is"):
            value: bytes = _uninterrupted(
                lambda: self._bus.get_property(_SYSTEMD, _MANAGER_PATH, _MANAGER, name, b"s")
            )
            return value.decode(errors="replace")

    def reload(self) -> None:
        """Reload: have systemd read the unit files again, as root."""
        with _translated("reloading the unit files"):
            self._call(b"Reload", [])

    def reset_failed(self, unit: str) -> None:
        """ResetFailedUnit: the unit is not failed any more, and its starts are counted from 0 again."""
        with _translated(f"resetting {unit}"):
            self._call(b"ResetFailedUnit", [(_STRING, unit.encode())])

    def start(self, unit: str, *, timeout: float, undo_stop: bool = True) -> None:
        """Start a unit and await its job: for a Type=notify service, until READY=1.

        Raises UnitFailed when the job did not end well, TimedOut after `timeout` seconds, and
        without `undo_stop` Stopping where somebody is having the unit stopped.
        """
        ask = self.ask_start if undo_stop else self.ask_start_unless_stopping
        self._await_job(ask, unit, timeout, "start")

    def stop(self, unit: str, *, timeout: float) -> None:
        """Stop a unit and await its job; of a unit that is not active that is at once."""
        self._await_job(self.ask_stop, unit, timeout, "stop")

    def restart(self, unit: str, *, timeout: float) -> None:
        """Stop a unit and start it in one job, which nobody who starts it meanwhile comes between."""
        self._await_job(self.ask_restart, unit, timeout, "restart")

    def _await_job(self, ask: Callable[[str], str], unit: str, timeout: float, doing: str) -> None:
        results: dict[str, str] = {}
        # The match comes before the job, or the job may be over before we listen.
        self.on_job_removed(lambda job, result: results.__setitem__(job, result))
        deadline = time.monotonic() + timeout
        job = ask(unit)
        poll = select.poll()
        poll.register(self.fileno(), select.POLLIN)
        self.pump()
        while job not in results:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimedOut(
                    f"{unit} was not done after {shown_span(timeout)}", hint=f"systemctl status {unit}"
                )
            poll.poll(left * 1000)
            self.pump()
        check_job(unit, results[job], lambda: self.state(unit), doing)

    def on_job_removed(self, heard: Callable[[str, str], None]) -> None:
        """Call `heard` with object path and result of each job that ends, from within pump()."""

        def callback(message: Any, error: Any = None, userdata: Any = None) -> None:
            message.process_reply(False)
            _number, job, _unit, result = message.body
            heard(job.decode(), result.decode())

        self._match(_MANAGER_PATH, _MANAGER, b"JobRemoved", callback)

    def on_unit_changed(self, unit: str, heard: Callable[[], None]) -> None:
        """Call `heard` whenever a property of the unit changes, from within pump()."""

        def callback(message: Any, error: Any = None, userdata: Any = None) -> None:
            heard()

        self._match(unit_path(unit), b"org.freedesktop.DBus.Properties", b"PropertiesChanged", callback)

    def fileno(self) -> int:
        return int(self._bus.get_fd())

    def pump(self) -> None:
        """Hand out every signal that has arrived; never waits."""
        with _translated("listening to the system bus"):
            # process() does one step a call and does not say whether there is more: an empty
            # result may also be a step of its own (a write, a reply), so three in a row end it.
            empty = 0
            while empty < 3:
                empty = empty + 1 if self._bus.process().is_empty() else 0

    def _match(self, path: bytes, interface: bytes, member: bytes, callback: Any) -> None:
        with _translated("listening to the system bus"):
            if not self._callbacks:
                self._call(b"Subscribe", [])
            _uninterrupted(lambda: self._bus.match_signal(_SYSTEMD, path, interface, member, callback))
        # The library keeps a bare pointer to the callback.
        self._callbacks.append(callback)

    def _ask(self, method: bytes, unit: str, mode: bytes, doing: str) -> str:
        with _translated(doing):
            job: bytes = self._call(method, [(_STRING, unit.encode()), (_STRING, mode)])
            return job.decode()

    def _call(self, method: bytes, arguments: list[tuple[int, bytes]]) -> Any:
        return _uninterrupted(
            lambda: self._bus.call_method(_SYSTEMD, _MANAGER_PATH, _MANAGER, method, arguments).body
        )

    def _get(self, unit: str, interface: bytes, name: bytes, kind: bytes) -> Any:
        return _uninterrupted(
            lambda: self._bus.get_property(_SYSTEMD, unit_path(unit), interface, name, kind)
        )

    def _text(self, unit: str, interface: bytes, name: bytes) -> str:
        value: bytes = self._get(unit, interface, name, b"s")
        return value.decode(errors="replace")


def journal_tail(*matches: str, lines: int = 5) -> list[str]:
    """The last lines of the journal that match; [] for who may not read them, or after 3 s."""
    import subprocess  # only where something failed, and where somebody looks at a hive

    command = ["journalctl", "--quiet", "--no-pager", f"--lines={lines}", *matches]
    try:
        told = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=3)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return told.stdout.splitlines() if told.returncode == 0 else []


def unit_path(unit: str) -> bytes:
    """The object path of a unit, escaped as sd_bus_path_encode(3) does."""
    escaped = "".join(
        chr(c) if chr(c).isascii() and (chr(c).isalpha() or (number and chr(c).isdigit())) else f"_{c:02x}"
        for number, c in enumerate(unit.encode())
    )
    return b"/org/freedesktop/systemd1/unit/" + escaped.encode()


def check_job(
    unit: str,
    result: str,
    ask_state: Callable[[], UnitState],
    doing: str,
    *,
    cure: Callable[[str, UnitState], str] | None = None,
) -> None:
    """Raise UnitFailed, with what systemd and the unit itself say of it, unless the job was done.

    `cure` is what to try where the unit itself names nothing, for a unit of another machine.
    """
    if result in ("done", "skipped"):
        return
    state = ask_state()
    if result == "canceled" and state.load == "loaded":
        raise JobReplaced(
            f"{unit} did not {doing}: somebody else has it stopped, started or restarted right now",
            hint=f"systemctl status {unit}",
        )
    causes = [f"its job ended as '{result}'"]
    if state.result not in ("", "success"):
        causes = [f"its result is '{state.result}'{f' ({state.end})' if state.end else ''}"]
    said, *cures = said_by(state)
    if said:
        causes.append(f"it said: {said}")
    # Given up on, it is still the last end that the unit speaks of.
    if state.result not in ("exit-code", "start-limit-hit") or said == NO_SOCKET:
        cures = []  # of an earlier end, or for who starts the program by hand
    hint = "\n".join(cures) or (cure or cure_of)(unit, state)
    failed = UnitFailed(f"{unit} did not {doing}: {', '.join(causes)}", hint=hint)
    # Given up on, systemd keeps the status of the last end.
    if state.result in ("exit-code", "start-limit-hit"):
        failed.exit_status = state.exit_status
    raise failed


def unusable(error: UnitFailed) -> UnitFailed | BadConfig:
    """The same as BadConfig, where the exit status says that: see EX_CONFIG, sysexits(3)."""
    if error.exit_status == BadConfig.exit_code:
        return BadConfig(error.message, hint=error.hint)
    return error


def said_by(state: UnitState) -> list[str]:
    """The status text of a daemon that failed, and the cures in it (failure_in_a_line)."""
    return state.status_text.split(TRY)


def cure_of(unit: str, state: UnitState) -> str:
    """Command lines, one a line, for a unit that did not do as it was asked."""
    if state.result in ("exit-code", "start-limit-hit") and (cure := cure_for_exit(state.exit_status, unit)):
        return cure
    if state.load == "masked" or state.result == "start-limit-hit" or NO_SOCKET in state.status_text:
        return DOCTOR
    if state.load == "not-found":
        package = "rbee-queen" if unit.startswith("queen") else "rbee-hive"
        return f"It is not installed; {with_packages(package)}"
    return f"systemctl status {unit}; sudo journalctl -u {unit} -e\n{DOCTOR}"


_ERRORS: tuple[tuple[str, type[RbeeError], str, str], ...] = (
    ("InteractiveAuthorizationRequired", NotPermitted, "systemd does not let you do this", DOCTOR),
    ("AccessDenied", NotPermitted, "systemd does not let you do this", DOCTOR),
    ("NoSuchUnit", UnitFailed, "systemd has no such unit", f"Is it installed? {with_packages('rbee')}"),
    # Not just unmask: a socket that was masked while it listened has lost its descriptor, too.
    ("UnitMasked", UnitFailed, "the unit is masked", DOCTOR),
    (
        "TransactionIsDestructive",
        Stopping,
        "it is being stopped",
        "Wait for the stop to end, then try again.",
    ),
    ("NoReply", TimedOut, f"no answer within {BUS_TIMEOUT:g} s", DOCTOR),
    ("TimedOut", TimedOut, f"no answer within {BUS_TIMEOUT:g} s", DOCTOR),
    ("Timeout", TimedOut, f"no answer within {BUS_TIMEOUT:g} s", DOCTOR),
)


def _dbus_class() -> Any:
    """pystemd's connection to D-Bus, without the package around it.

    That would import lxml, for an interface that we do not use, and cost every rbeectl and
    the queen 30 ms. So the package is found and not run, where nobody has imported it yet.
    """
    if "pystemd" not in sys.modules and (spec := find_spec("pystemd")) is not None:
        sys.modules["pystemd"] = module_from_spec(spec)
    from pystemd.dbuslib import DBus

    return DBus


def _uninterrupted(call: Callable[[], Result]) -> Result:
    """Call again when a signal came in between (SIGTERM, say): sd-bus then gives up with EINTR.

    All that is called here may be said twice: systemd merges a job with its like.
    """
    deadline = time.monotonic() + BUS_TIMEOUT
    while True:
        # sd-bus reads it at each call (systemd's docs/ENVIRONMENT.md); its own default is 25 s.
        os.environ["SYSTEMD_BUS_TIMEOUT"] = f"{max(0.1, deadline - time.monotonic()):.3f}s"
        try:
            return call()
        except Exception as error:
            if not _is_bus_error(error) or _errno(error) != errno.EINTR:
                raise


@contextlib.contextmanager
def _translated(doing: str) -> Iterator[None]:
    """Turn the library's errors into ours."""
    try:
        yield
    except Exception as error:
        if not _is_bus_error(error):
            raise
        raise _translate(doing, error) from error


def _is_bus_error(error: Exception) -> bool:
    return type(error).__module__ == "pystemd.dbusexc"


def _errno(error: Any) -> int:
    """The library keeps errno negative, and pystemd 0.11 leaves it None now and then."""
    if error.errno is None and os.strerror(errno.EINTR) in str(error):
        return errno.EINTR
    return abs(int(error.errno or 0))


def _translate(doing: str, error: Any) -> RbeeError:
    # pystemd makes a class of each D-Bus error it knows and leaves the rest to DBusBaseError,
    # which has the name.
    name = f"{type(error).__name__} {getattr(error, 'err_name', '')}"
    message = getattr(error, "err_message", b"") or os.strerror(_errno(error))
    said = (message.decode(errors="replace") if isinstance(message, bytes) else str(message)).rstrip(".")
    for mark, kind, meaning, cure in _ERRORS:
        if mark in name or mark in said:
            return kind(f"{doing}: {meaning} ({said})", hint=cure)
    if doing == "connecting to the system bus":
        if _errno(error) == errno.ETIMEDOUT:
            return TimedOut(f"the system bus did not greet us within {BUS_TIMEOUT:g} s", hint=DOCTOR)
        return Unreachable(
            f"the system bus does not answer ({said})",
            hint=DOCTOR,
        )
    return UnitFailed(f"{doing}: {said}", hint=DOCTOR)


# sd_listen_fds(3)


def take_sockets(environ: MutableMapping[str, str] = os.environ) -> dict[str, list[socket.socket]]:
    """The listening sockets that systemd handed over, by FileDescriptorName=; BadConfig if there are none.

    By name, because their order is not stable where several socket units feed one service.
    The variables are taken out of the environment, so that no child believes them its own.
    """
    pid, count = environ.pop("LISTEN_PID", ""), environ.pop("LISTEN_FDS", "0")
    names = [name or "unknown" for name in environ.pop("LISTEN_FDNAMES", "").split(":")]
    sockets: dict[str, list[socket.socket]] = {}
    if pid != str(os.getpid()) or not re.fullmatch("[1-9][0-9]{0,5}", count):
        raise BadConfig(NO_SOCKET, hint="Start the unit instead: systemctl start UNIT")
    for number, fd in enumerate(range(3, 3 + int(count))):
        os.set_inheritable(fd, False)
        # No family and no protocol given: Python asks the kernel, and asyncio then sets TCP_NODELAY.
        listener = socket.socket(fileno=fd)
        sockets.setdefault(names[number] if number < len(names) else "unknown", []).append(listener)
    return sockets


TRY = "; try: "
"""What stands before each cure in a status text."""


def failure_in_a_line(error: RbeeError) -> str:
    """What ended a daemon, with its cures, as a unit's status text; check_job() takes it apart again."""
    return TRY.join([error.message, *(error.hint or "").splitlines()])


class Notifier:
    """sd_notify(3). Outside systemd ($NOTIFY_SOCKET unset) it says nothing."""

    def __init__(self) -> None:
        from sdnotify import SystemdNotifier

        self._notifier = SystemdNotifier()

    def ready(self, status: str) -> None:
        self._send("READY=1", status)

    def status(self, status: str) -> None:
        self._send("", status)

    def stopping(self, status: str) -> None:
        self._send("STOPPING=1", status)

    def extend(self, seconds: float) -> None:
        """Ask for so much time from now on, where the unit's own timeout would end what is under way."""
        self._notifier.notify(f"EXTEND_TIMEOUT_USEC={seconds * 1e6:.0f}")

    def alive(self) -> None:
        self._notifier.notify("WATCHDOG=1")

    def _send(self, state: str, status: str) -> None:
        line = shortened(printable(" ".join(status.split())), STATUS_LIMIT)
        message = f"{state}\nSTATUS={line}".lstrip()
        # sdnotify encodes latin-1, systemd wants UTF-8: hand it text that comes out as that.
        self._notifier.notify(message.encode().decode("latin-1"))


def invocation_id(environ: Mapping[str, str] = os.environ) -> str | None:
    """Of the unit that this process is (systemd.exec(5)): new with each of its starts."""
    found = environ.get("INVOCATION_ID", "")
    return found if re.fullmatch("[0-9a-f]{32}", found) else None


def invocation_of(unit: str, root: Path = Path("/")) -> str | None:
    """The invocation ID of another unit while it runs, where systemd leaves it for journald."""
    try:
        return os.readlink(root / "run/systemd/units" / f"invocation:{unit}")
    except OSError:
        return None


def watchdog_interval(environ: Mapping[str, str] = os.environ) -> float | None:
    """Half of WatchdogSec= in seconds, as sd_watchdog_enabled(3) advises; None where there is none."""
    usec = environ.get("WATCHDOG_USEC", "")
    if not re.fullmatch("[0-9]{1,18}", usec) or environ.get("WATCHDOG_PID", str(os.getpid())) != str(
        os.getpid()
    ):
        return None
    return int(usec) / 2_000_000 or None
