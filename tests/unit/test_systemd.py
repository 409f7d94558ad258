"""Sockets handed over, notifications, object paths, and bus errors that become ours."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pystemd.dbusexc
import pytest
from pystemd.dbuslib import path_encode

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
from rbee.systemd import (
    HIVE_UNIT,
    QUEEN_UNIT,
    Bus,
    Notifier,
    UnitState,
    _translate,
    _translated,
    check_job,
    invocation_id,
    invocation_of,
    take_sockets,
    unit_path,
    unusable,
    watchdog_interval,
)
from tests.unit.serving import listen

REPOSITORY = Path(__file__).parents[2]

# sd_listen_fds(3)

TAKE = """
import json, os, socket, sys
pairs, environ = int(sys.argv[1]), json.loads(sys.argv[2])
if environ.get("LISTEN_PID") == "own":
    environ["LISTEN_PID"] = str(os.getpid())
from rbee.errors import BadConfig
from rbee.systemd import take_sockets
os.environ.update(environ)
try:
    taken = take_sockets()
except BadConfig as error:
    print(json.dumps({"refused": error.message, "exit": error.exit_code}))
    sys.exit()
print(json.dumps({
    "taken": {name: [one.fileno() for one in listeners] for name, listeners in taken.items()},
    "addresses": [one.getsockname() for listeners in taken.values() for one in listeners],
    "unix": all(one.family == socket.AF_UNIX for listeners in taken.values() for one in listeners),
    "inheritable": [os.get_inheritable(3 + n) for n in range(pairs)],
    "left": sorted(name for name in os.environ if name.startswith("LISTEN_")),
}))
"""


def take(tmp_path: Path, count: int, **environ: str) -> dict[str, Any]:
    """What a process that is started with `count` listening sockets from descriptor 3 on takes."""
    listeners = [listen(tmp_path / f"{number}.sock") for number in range(count)]
    # As systemd does it: the descriptors stand at 3, 4, ... in the new process.
    passed = [fcntl.fcntl(listener, fcntl.F_DUPFD, 20) for listener in listeners]
    redirections = " ".join(f"{3 + n}<&{fd} {fd}<&-" for n, fd in enumerate(passed))
    try:
        run = subprocess.run(
            ["bash", "-c", f'exec "$@" {redirections}', "bash"]  # noqa: RUF005
            + [sys.executable, "-c", TAKE, str(count), json.dumps(environ)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
            pass_fds=passed,
        )
    finally:
        for fd in passed:
            os.close(fd)
        for listener in listeners:
            listener.close()
    answer: dict[str, Any] = json.loads(run.stdout)
    return answer


def test_sockets_are_taken_by_name_and_the_environment_is_cleaned(tmp_path: Path) -> None:
    answer = take(tmp_path, 2, LISTEN_PID="own", LISTEN_FDS="2", LISTEN_FDNAMES="queen-rbee.socket:tcp")

    assert answer == {
        "taken": {"queen-rbee.socket": [3], "tcp": [4]},
        "addresses": [str(tmp_path / "0.sock"), str(tmp_path / "1.sock")],
        "unix": True,
        "inheritable": [False, False],
        "left": [],
    }


def test_sockets_of_one_name_are_taken_together(tmp_path: Path) -> None:
    answer = take(tmp_path, 2, LISTEN_PID="own", LISTEN_FDS="2", LISTEN_FDNAMES="queen:queen")

    assert answer["taken"] == {"queen": [3, 4]}


def test_sockets_without_names_are_called_unknown_as_systemd_calls_them(tmp_path: Path) -> None:
    assert take(tmp_path, 2, LISTEN_PID="own", LISTEN_FDS="2")["taken"] == {"unknown": [3, 4]}


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": "own", "LISTEN_FDS": "0"},
        {"LISTEN_PID": "own"},
        {"LISTEN_PID": "own", "LISTEN_FDS": "-1"},
        {"LISTEN_PID": "own", "LISTEN_FDS": "many"},
        {"LISTEN_PID": "", "LISTEN_FDS": "1"},
    ],
)
def test_without_sockets_of_its_own_a_daemon_cannot_run(tmp_path: Path, environ: dict[str, str]) -> None:
    assert take(tmp_path, 1, **environ) == {"refused": "systemd handed over no socket", "exit": 78}


def test_who_starts_a_daemon_by_hand_is_told_how_to_start_it() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x", "HOME": "/root"}

    with pytest.raises(BadConfig) as caught:
        take_sockets(environ)

    assert "systemctl start" in (caught.value.hint or "")
    assert environ == {"HOME": "/root"}


# sd_notify(3)


def test_ready_is_said_with_the_status_in_one_message(
    notifier: Notifier, systemd_socket: socket.socket
) -> None:
    notifier.ready("hives: 1 online")

    assert systemd_socket.recv(4096) == b"READY=1\nSTATUS=hives: 1 online"


@pytest.mark.parametrize(
    ("status", "heard"),
    [
        ("größer 👑", "STATUS=größer 👑"),
        ("two\nlines\r\n and\ttabs ", "STATUS=two lines and tabs"),
        ("a\nMAINPID=1", "STATUS=a MAINPID=1"),
        ("", "STATUS="),
        ("a\ud800b", "STATUS=a\\ud800b"),
        ("\x1b[2J\u202e\x9b\x00", "STATUS=\\x1b[2J\\u202e\\x9b\\x00"),
    ],
)
def test_a_status_is_one_line_of_utf_8(
    notifier: Notifier, systemd_socket: socket.socket, status: str, heard: str
) -> None:
    notifier.status(status)

    assert systemd_socket.recv(4096).decode() == heard


def test_a_status_is_cut_where_it_gets_too_long_to_read(
    notifier: Notifier, systemd_socket: socket.socket
) -> None:
    notifier.status(f"joining failed: {'ü' * 10_000}; try: this")

    heard = systemd_socket.recv(65536).decode()
    assert len(heard) == len("STATUS=") + 500
    assert heard.startswith("STATUS=joining failed: üü")
    assert heard.endswith("üü; try: this")


def test_stopping_and_the_watchdog_are_told(notifier: Notifier, systemd_socket: socket.socket) -> None:
    notifier.stopping("stopping")
    notifier.alive()

    assert systemd_socket.recv(4096) == b"STOPPING=1\nSTATUS=stopping"
    assert systemd_socket.recv(4096) == b"WATCHDOG=1"


def test_outside_systemd_a_notifier_says_nothing(silent_notifier: Notifier) -> None:
    silent_notifier.ready("hello")
    silent_notifier.alive()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "10000000"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_of_its_time(environ: dict[str, str], seconds: float | None) -> None:
    assert watchdog_interval(environ) == seconds


# org.freedesktop.systemd1(5)


@pytest.mark.parametrize(
    "unit",
    [
        "queen-rbee.service",
        "queen-rbee.socket",
        "rbee-hive.service",
        "rbee-hive.socket",
        "rbee.target",
        "getty@tty1.service",
        "dev-disk-by\\x2duuid.device",
        "a_b:c.mount",
        "-.mount",
        "9front.service",
        "größe.service",
    ],
)
def test_the_object_path_of_a_unit_is_the_one_that_sd_bus_makes(unit: str) -> None:
    assert unit_path(unit) == path_encode(b"/org/freedesktop/systemd1/unit", unit.encode())


@pytest.mark.parametrize(
    ("active", "is_active", "is_stopped"),
    [
        ("active", True, False),
        ("reloading", True, False),
        ("activating", False, False),
        ("deactivating", False, False),
        ("inactive", False, True),
        ("failed", False, True),
    ],
)
def test_a_unit_is_active_or_stopped_or_between(active: str, is_active: bool, is_stopped: bool) -> None:
    state = UnitState("loaded", active, "x")

    assert (state.is_active, state.is_stopped) == (is_active, is_stopped)


@pytest.mark.parametrize("result", ["done", "skipped"])
def test_a_job_that_is_done_is_no_error(result: str) -> None:
    state = UnitState("loaded", "failed", "failed", result="exit-code")
    check_job(QUEEN_UNIT, result, lambda: state, "start")


def test_a_job_that_failed_before_the_program_ran_names_systemd_s_own_status_and_its_settings() -> None:
    state = UnitState("loaded", "failed", "failed", result="exit-code", exit_status=226)

    with pytest.raises(UnitFailed) as caught:
        check_job("rbee-hive.service", "failed", lambda: state, "start")

    assert caught.value.message == (
        "rbee-hive.service did not start: its result is 'exit-code' (exit status 226/NAMESPACE: systemd "
        "could not set up its view of the file system: a path that a setting names may not exist)"
    )
    assert caught.value.hint is not None
    first, second = caught.value.hint.splitlines()
    assert first.startswith("systemctl show -p ReadWritePaths,")
    assert first.endswith(" rbee-hive.service")
    assert second == "sudo journalctl -u rbee-hive.service -e"


@pytest.mark.parametrize(
    ("result", "status", "end"),
    [
        ("exit-code", 0, ""),
        ("exit-code", 3, "exit status 3"),
        ("exit-code", 255, "exit status 255"),
        ("signal", 9, "signal 9"),
        ("timeout", 15, ""),
        ("success", 0, ""),
    ],
)
def test_a_number_is_called_what_it_is(result: str, status: int, end: str) -> None:
    assert UnitState("loaded", "failed", "failed", result=result, exit_status=status).end == end


@pytest.mark.parametrize(
    ("result", "status", "has_reason"),
    [
        ("success", 0, False),
        ("exit-code", 0, False),
        ("exit-code", 1, True),
        ("signal", 9, True),
        ("timeout", 0, True),
    ],
)
def test_a_state_that_was_read_in_the_middle_of_a_restart_has_no_reason(
    result: str, status: int, has_reason: bool
) -> None:
    state = UnitState("loaded", "activating", "start", result=result, exit_status=status, restarts=1)

    assert state.has_reason == has_reason


@pytest.mark.parametrize(
    ("active", "sub", "result", "restarts", "is_restarting"),
    [
        ("activating", "auto-restart", "exit-code", 0, True),
        ("activating", "auto-restart-queued", "exit-code", 1, True),
        ("activating", "start", "success", 3, True),
        ("deactivating", "stop-post", "exit-code", 3, True),
        ("activating", "start", "success", 0, False),
        ("active", "running", "success", 3, False),
        ("deactivating", "stop-sigterm", "success", 3, False),
        ("failed", "failed", "exit-code", 3, False),
    ],
)
def test_a_unit_that_is_never_failed_may_be_restarted_again_and_again(
    active: str, sub: str, result: str, restarts: int, is_restarting: bool
) -> None:
    assert UnitState("loaded", active, sub, result=result, restarts=restarts).is_restarting == is_restarting


def test_a_job_whose_place_another_took_is_no_failure_of_the_unit() -> None:
    with pytest.raises(JobReplaced, match="somebody else has it stopped, started or restarted right now"):
        check_job(HIVE_UNIT, "canceled", lambda: UnitState("loaded", "deactivating", "stop-sigterm"), "start")


@pytest.mark.parametrize(
    ("state", "kind"),
    [
        (UnitState("loaded", "failed", "failed", result="exit-code", exit_status=78), BadConfig),
        (UnitState("loaded", "failed", "failed", result="start-limit-hit", exit_status=78), BadConfig),
        (UnitState("loaded", "failed", "failed", result="exit-code", exit_status=1), UnitFailed),
        (UnitState("loaded", "failed", "failed", result="timeout", exit_status=78), UnitFailed),
    ],
)
def test_what_ended_with_78_cannot_be_run_with_given_up_on_or_not(
    state: UnitState, kind: type[RbeeError]
) -> None:
    with pytest.raises(UnitFailed) as caught:
        check_job(QUEEN_UNIT, "failed", lambda: state, "start")

    assert type(unusable(caught.value)) is kind
    assert unusable(caught.value).message == caught.value.message


@pytest.mark.parametrize(
    ("unit", "result", "state", "message", "hint"),
    [
        (
            QUEEN_UNIT,
            "failed",
            UnitState(
                "loaded", "failed", "failed", result="exit-code", status_text="/x/catalog.db is damaged"
            ),
            "queen-rbee.service did not start: its result is 'exit-code', it said: /x/catalog.db is damaged",
            "systemctl status queen-rbee.service; sudo journalctl -u queen-rbee.service -e\n"
            "sudo rbeectl doctor",
        ),
        (
            QUEEN_UNIT,
            "failed",
            UnitState(
                "loaded", "failed", "failed", result="exit-code", status_text="it broke; try: a b; try: c"
            ),
            "queen-rbee.service did not start: its result is 'exit-code', it said: it broke",
            "a b\nc",
        ),
        (
            QUEEN_UNIT,
            "failed",
            UnitState("loaded", "failed", "failed", result="watchdog", status_text="it broke; try: a b"),
            "queen-rbee.service did not start: its result is 'watchdog', it said: it broke",
            "systemctl status queen-rbee.service; sudo journalctl -u queen-rbee.service -e\n"
            "sudo rbeectl doctor",
        ),
        (
            HIVE_UNIT,
            "timeout",
            UnitState("loaded", "activating", "start", result="success"),
            "rbee-hive.service did not start: its job ended as 'timeout'",
            "systemctl status rbee-hive.service; sudo journalctl -u rbee-hive.service -e\n"
            "sudo rbeectl doctor",
        ),
        (
            QUEEN_UNIT,
            "failed",
            UnitState("loaded", "failed", "failed", result="start-limit-hit"),
            "queen-rbee.service did not start: its result is 'start-limit-hit'",
            "sudo rbeectl doctor",
        ),
        (
            HIVE_UNIT,
            "canceled",
            UnitState("masked", "inactive", "dead"),
            "rbee-hive.service did not start: its job ended as 'canceled'",
            "sudo rbeectl doctor",
        ),
        (
            QUEEN_UNIT,
            "failed",
            UnitState(
                "loaded", "failed", "failed", result="exit-code", status_text="systemd handed over no socket"
            ),
            "queen-rbee.service did not start: its result is 'exit-code',"
            " it said: systemd handed over no socket",
            "sudo rbeectl doctor",
        ),
        (
            HIVE_UNIT,
            "dependency",
            UnitState("not-found", "inactive", "dead"),
            "rbee-hive.service did not start: its job ended as 'dependency'",
            f"It is not installed; {with_packages('rbee-hive')}",
        ),
        (
            "queen-rbee.socket",
            "failed",
            UnitState("not-found", "inactive", "dead"),
            "queen-rbee.socket did not start: its job ended as 'failed'",
            f"It is not installed; {with_packages('rbee-queen')}",
        ),
    ],
)
def test_a_job_that_fails_tells_what_systemd_and_the_unit_say_and_the_cure(
    unit: str, result: str, state: UnitState, message: str, hint: str
) -> None:
    with pytest.raises(UnitFailed) as caught:
        check_job(unit, result, lambda: state, "start")

    assert (caught.value.message, caught.value.hint) == (message, hint)


def test_the_invocation_of_a_unit_is_what_systemd_tells_the_unit_itself(tmp_path: Path) -> None:
    links = tmp_path / "run/systemd/units"
    links.mkdir(parents=True)
    (links / "invocation:a.service").symlink_to("0" * 32)

    assert invocation_of("a.service", tmp_path) == invocation_id({"INVOCATION_ID": "0" * 32}) == "0" * 32
    assert invocation_of("b.service", tmp_path) is None
    assert invocation_id({}) is None
    assert invocation_id({"INVOCATION_ID": "x"}) is None


# Errors of the bus

exc = pystemd.dbusexc


@pytest.mark.parametrize(
    ("error", "kind", "message", "cure"),
    [
        (
            exc.DBusInteractiveAuthorizationRequiredError(
                -errno.EACCES, None, b"Interactive authentication required."
            ),
            NotPermitted,
            "starting x: systemd does not let you do this (Interactive authentication required)",
            "sudo rbeectl doctor",
        ),
        (
            exc.DBusAccessDeniedError(-errno.EACCES, None, b"Permission denied"),
            NotPermitted,
            "starting x: systemd does not let you do this (Permission denied)",
            "sudo rbeectl doctor",
        ),
        (
            exc.DBusNoSuchUnitError(-errno.ENOENT, None, b"Unit x.service not found."),
            UnitFailed,
            "starting x: systemd has no such unit (Unit x.service not found)",
            "sudo apt install ./*.deb",
        ),
        (
            exc.DBusBaseError(
                -errno.EBADR, "org.freedesktop.systemd1.UnitMasked", b"Unit x.service is masked."
            ),
            UnitFailed,
            "starting x: the unit is masked (Unit x.service is masked)",
            "sudo rbeectl doctor",
        ),
        (
            exc.DBusBaseError(-errno.ENOENT, "org.freedesktop.systemd1.NoSuchUnit", "Unit x not found."),
            UnitFailed,
            "starting x: systemd has no such unit (Unit x not found)",
            "sudo apt install ./*.deb",
        ),
        (
            exc.DBusBaseError(
                -errno.EDEADLK,
                "org.freedesktop.systemd1.TransactionIsDestructive",
                b"Transaction for x.service/start is destructive.",
            ),
            Stopping,
            "starting x: it is being stopped (Transaction for x.service/start is destructive)",
            "Wait for the stop to end",
        ),
        (
            exc.DBusNoReplyError(-errno.ETIMEDOUT, None, b"Remote peer did not answer"),
            TimedOut,
            "starting x: no answer within 3 s (Remote peer did not answer)",
            "sudo rbeectl doctor",
        ),
        (
            exc.DBusTimeoutError(-errno.ETIMEDOUT, None, None),
            TimedOut,
            "starting x: no answer within 3 s (Connection timed out)",
            "sudo rbeectl doctor",
        ),
        (
            exc.DBusTimedOutError(-errno.ETIMEDOUT, None, None),
            TimedOut,
            "starting x: no answer within 3 s (Connection timed out)",
            "sudo rbeectl doctor",
        ),
        (
            exc.DBusDisconnectedError(-errno.ECONNRESET, None, None),
            UnitFailed,
            "starting x: Connection reset by peer",
            "sudo rbeectl doctor",
        ),
        (
            exc.DBusFailedError(-errno.EIO, None, b"\xff broken"),
            UnitFailed,
            "starting x: \ufffd broken",
            "sudo rbeectl doctor",
        ),
        (exc.DBusBaseError(None), UnitFailed, "starting x: Success", "sudo rbeectl doctor"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_error_of_the_bus_becomes_ours_with_its_cure(
    error: Exception, kind: type[RbeeError], message: str, cure: str
) -> None:
    ours = _translate("starting x", error)

    assert type(ours) is kind
    assert ours.message == message
    assert cure in (ours.hint or "")


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ECONNREFUSED])
def test_a_machine_without_a_bus_is_told_apart(code: int) -> None:
    ours = _translate("connecting to the system bus", exc.DBusBaseError(-code))

    assert type(ours) is Unreachable
    assert ours.message == f"the system bus does not answer ({os.strerror(code)})"
    assert ours.hint == "sudo rbeectl doctor"


def test_a_bus_that_hangs_is_given_up_and_its_descriptor_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.systemd.BUS_TIMEOUT", 0.1)
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
    before = os.listdir("/proc/self/fd")

    # It takes the connection, as the kernel does for a daemon that is stopped, and says nothing.
    with listen(tmp_path / "bus"), pytest.raises(TimedOut, match="did not greet us within 0.1 s"), Bus():
        raise AssertionError("there is no bus")

    assert os.listdir("/proc/self/fd") == before


def test_the_library_s_error_stays_chained() -> None:
    theirs = exc.DBusAccessDeniedError(-errno.EACCES)

    with pytest.raises(NotPermitted) as caught, _translated("stopping x"):
        raise theirs

    assert caught.value.__cause__ is theirs


def test_an_error_that_is_not_the_bus_s_is_left_alone() -> None:
    with pytest.raises(ZeroDivisionError), _translated("stopping x"):
        raise ZeroDivisionError
