"""Units: what they are, and what is said of a job that failed."""

from __future__ import annotations

from typing import Any

import pytest

from rbee.errors import BadConfig, JobReplaced, RbeeError, TimedOut, UnitFailed, with_packages
from rbee.scope import HIVE_UNIT, QUEEN_UNIT, user_scope
from rbee.systemd.unit import Unit, UnitState, check_job, cure_of, unusable
from tests.unit.systemd.played import PlayedConnection


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
    with pytest.raises(JobReplaced, match="somebody else is stopping, starting or restarting it"):
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


def test_of_a_user_s_unit_the_cure_is_what_that_user_types() -> None:
    failed = UnitState("loaded", "failed", "failed", result="exit-code", exit_status=1)

    assert cure_of(HIVE_UNIT, failed, user_scope()) == (
        "systemctl --user status rbee-hive.service; journalctl --user -u rbee-hive.service -e\n"
        "rbeectl --user doctor"
    )


# A unit as an object


def test_a_unit_is_asked_for_what_its_kind_has() -> None:
    connection = PlayedConnection()

    state = UnitState("loadstate", "activestate", "substate", 1)
    assert Unit(connection, "a.service").state() == state._replace(invocation="07" * 16)
    assert Unit(connection, "a.target").state() == state
    assert Unit(connection, "a.socket").active_state() == "activestate"
    assert not Unit(connection, "a.target").has_job()


@pytest.mark.parametrize(("verb", "method"), [("start", "Start"), ("stop", "Stop"), ("restart", "Restart")])
def test_what_is_done_to_a_unit_is_a_job_that_is_awaited(verb: str, method: str) -> None:
    connection = PlayedConnection()

    getattr(Unit(connection, HIVE_UNIT), verb)(timeout=5)

    assert connection.called == [(f"{method}Unit", HIVE_UNIT, "replace")]


def test_a_job_that_is_not_to_undo_a_stop_gives_way_to_it() -> None:
    connection = PlayedConnection()
    unit = Unit(connection, HIVE_UNIT)

    unit.ask_start(undo_stop=False)
    unit.ask_restart(undo_stop=False)

    assert connection.called == [("StartUnit", HIVE_UNIT, "fail"), ("RestartUnit", HIVE_UNIT, "fail")]


def test_a_job_that_failed_is_an_error_and_one_that_does_not_end_too() -> None:
    with pytest.raises(UnitFailed, match="did not start: its job ended as 'failed'"):
        Unit(PlayedConnection(ends="failed"), HIVE_UNIT).start(timeout=5)
    with pytest.raises(TimedOut, match="was not done after"):
        Unit(PlayedConnection(ends=""), HIVE_UNIT).stop(timeout=0)


@pytest.mark.parametrize(
    ("invocations", "status"),
    [
        ([b"\1", b"\1"], 0),  # read once
        ([b"\1", b"\2", b"\2"], 1),  # started meanwhile: read again
        ([b"", b"\1", b"\2", b"\3"], 2),  # started again and again: the last attempt counts
    ],
)
def test_a_service_that_is_started_while_its_state_is_read_is_read_again(
    invocations: list[bytes], status: int
) -> None:
    class Starting(PlayedConnection):
        """Its exit status is how often it was read before."""

        reads = 0

        def get(self, unit: str, interface: bytes, name: bytes, kind: bytes) -> Any:
            if name == b"InvocationID":
                return list(invocations.pop(0))
            if name == b"LoadState":
                return b"loaded"
            if name == b"ExecMainStatus":
                self.reads += 1
                return self.reads - 1
            return super().get(unit, interface, name, kind)

    last = invocations[-1].hex()
    state = Unit(Starting(), HIVE_UNIT).state()

    assert (state.invocation, state.exit_status, invocations) == (last, status, [])
