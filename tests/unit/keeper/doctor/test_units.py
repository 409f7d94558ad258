"""The units."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.keeper.doctor.check import Command
from rbee.keeper.doctor.units import check_units
from rbee.scope import (
    CONTROL_SOCKET_UNIT,
    HIVE_SOCKET_UNIT,
    HIVE_UNIT,
    JOIN_UNIT,
    METRICS_UNIT,
    QUEEN_SOCKET_UNIT,
    QUEEN_UNIT,
    TARGET,
)
from rbee.systemd.unit import UnitState
from tests.unit.keeper.doctor.doubles import FAILED, GONE, MASKED, asked
from tests.unit.played_systemd import ACTIVE, INACTIVE, LISTENING, PlayedBus

RESET = ("systemctl", "reset-failed", QUEEN_UNIT, QUEEN_SOCKET_UNIT)

START = ("systemctl", "start", QUEEN_SOCKET_UNIT)

RESTART = ("systemctl", "restart", TARGET)


def test_where_nothing_is_installed_that_is_said(bus: PlayedBus, tmp_path: Path) -> None:
    (complaint,) = asked(check_units, bus, tmp_path)

    assert complaint.hint == "with rbee's packages in this folder: sudo apt install ./*.deb"


@pytest.mark.parametrize(
    ("unit", "state", "file_state", "cures"),
    [
        (QUEEN_UNIT, MASKED, ("masked", False), [("systemctl", "unmask", QUEEN_UNIT)]),
        (QUEEN_UNIT, MASKED, ("masked-runtime", False), [("systemctl", "unmask", "--runtime", QUEEN_UNIT)]),
        (TARGET, MASKED, ("masked", True), [("systemctl", "unmask", TARGET)]),
        (
            HIVE_SOCKET_UNIT,
            LISTENING._replace(load="masked"),
            ("masked", False),
            [("systemctl", "unmask", HIVE_SOCKET_UNIT), RESTART],
        ),
        (
            HIVE_SOCKET_UNIT,
            INACTIVE._replace(load="masked"),
            ("masked", False),
            [("systemctl", "unmask", HIVE_SOCKET_UNIT)],
        ),
        (HIVE_UNIT, GONE, ("", False), []),
        (HIVE_UNIT, INACTIVE._replace(load="bad-setting"), ("static", False), []),
        (HIVE_UNIT, ACTIVE, ("static", True), [("systemctl", "daemon-reload")]),
    ],
)
def test_a_unit_that_cannot_be_started_is_told_once(
    bus: PlayedBus,
    root: Path,
    unit: str,
    state: UnitState,
    file_state: tuple[str, bool],
    cures: list[Command],
) -> None:
    bus.states[unit], bus.files[unit] = state, file_state

    (complaint,) = asked(check_units, bus, root)

    assert unit in complaint.text
    assert list(complaint.cures) == cures
    assert cures or complaint.hint


def test_a_masked_unit_is_not_blamed_for_having_failed(bus: PlayedBus, root: Path) -> None:
    bus.states[QUEEN_UNIT] = FAILED._replace(load="masked")
    bus.files[QUEEN_UNIT] = "masked", False

    (complaint,) = asked(check_units, bus, root)

    assert "is masked" in complaint.text


def test_a_unit_that_fails_and_is_restarted_for_ever_is_a_fault_and_says_of_what(
    bus: PlayedBus, root: Path
) -> None:
    bus.states[HIVE_UNIT] = ACTIVE._replace(
        active="activating", sub="auto-restart", result="exit-code", exit_status=226, restarts=7
    )

    (complaint,) = asked(check_units, bus, root)

    assert complaint.is_fault
    assert complaint.text.startswith(
        "rbee-hive.service fails and is restarted repeatedly, 7 times so far: it ended with exit status "
        "226/NAMESPACE: systemd could not set up its view of the file system"
    )
    assert complaint.hint is not None
    assert complaint.hint.splitlines()[0].startswith("systemctl show -p ReadWritePaths,")
    assert complaint.hint.splitlines()[1] == "sudo journalctl -u rbee-hive.service -e"


def test_a_unit_that_is_back_in_a_moment_is_no_fault(bus: PlayedBus, root: Path) -> None:
    restarting = ACTIVE._replace(active="activating", sub="auto-restart", result="exit-code", restarts=2)
    bus.states[QUEEN_UNIT] = restarting
    bus.later[QUEEN_UNIT] = [restarting._replace(sub="start", result="success"), ACTIVE._replace(restarts=2)]

    assert asked(check_units, bus, root) == []


def test_what_a_unit_ended_with_at_last_is_said_behind_a_limit_of_starts(bus: PlayedBus, root: Path) -> None:
    bus.states[QUEEN_UNIT] = FAILED._replace(result="start-limit-hit", exit_status=203)

    (complaint,) = asked(check_units, bus, root)

    assert "(start-limit-hit); it last ended with exit status 203/EXEC: systemd could not" in complaint.text
    assert complaint.hint is not None
    assert complaint.hint.startswith("systemctl show -p ExecStart queen-rbee.service\n")


@pytest.mark.parametrize("listener", [LISTENING, FAILED._replace(result="service-start-limit-hit")])
def test_what_systemd_could_not_set_up_is_not_forgotten_as_a_cure(
    bus: PlayedBus, root: Path, listener: UnitState
) -> None:
    bus.states[HIVE_UNIT] = FAILED._replace(result="exit-code", exit_status=226)
    bus.states[HIVE_SOCKET_UNIT] = listener

    (complaint,) = asked(check_units, bus, root)

    assert (complaint.is_fault, complaint.cures) == (True, ())
    assert complaint.hint is not None
    told = "When that is mended: sudo systemctl reset-failed rbee-hive.service rbee-hive.socket"
    assert complaint.hint.splitlines()[2].startswith(told)
    assert complaint.hint.endswith("start rbee-hive.socket") == (listener is not LISTENING)


@pytest.mark.parametrize(
    ("queen", "control", "told"),
    [
        (INACTIVE, INACTIVE, None),
        (ACTIVE, INACTIVE, "does not listen"),
        (INACTIVE, FAILED._replace(result="trigger-limit-hit"), "has failed (trigger-limit-hit)"),
    ],
)
def test_a_queen_that_cannot_control_her_hive_is_a_fault(
    bus: PlayedBus, root: Path, queen: UnitState, control: UnitState, told: str | None
) -> None:
    bus.states |= {QUEEN_UNIT: queen, CONTROL_SOCKET_UNIT: control}

    complaints = asked(check_units, bus, root)

    assert [one.text for one in complaints] == (
        []
        if told is None
        else [f"{CONTROL_SOCKET_UNIT} {told}: the queen can neither start nor stop the hive of this machine"]
    )
    assert all(one.cures == (("systemctl", "restart", CONTROL_SOCKET_UNIT),) for one in complaints)


def test_metrics_that_do_not_reach_prometheus_are_a_fault(bus: PlayedBus, root: Path) -> None:
    bus.states[METRICS_UNIT] = FAILED._replace(result="exit-code", exit_status=1)

    (complaint,) = asked(check_units, bus, root)

    assert complaint.text.endswith("Prometheus gets no metrics from the queen: it ended with exit status 1")
    assert complaint.hint == "sudo journalctl -u rbee-metrics.service -e"


def test_an_invitation_that_came_to_nothing_is_told_with_its_reason(bus: PlayedBus, root: Path) -> None:
    said = "joining failed: nobody listens on queen:8500; try: rbeectl tcp enable"
    bus.states[JOIN_UNIT] = FAILED._replace(status_text=said)

    (complaint,) = asked(check_units, bus, root)

    assert complaint.text == f"{JOIN_UNIT} has failed: joining failed: nobody listens on queen:8500"
    assert complaint.cures == (("systemctl", "reset-failed", JOIN_UNIT),)


@pytest.mark.parametrize(
    ("service", "listener", "said", "cures"),
    [
        (
            FAILED,
            FAILED._replace(result="service-start-limit-hit"),
            "(service-start-limit-hit); queen-rbee.service has failed: it ended with exit status 1",
            [RESET, START],
        ),
        (INACTIVE, FAILED._replace(result="trigger-limit-hit"), "(trigger-limit-hit)", [RESET, START]),
        # A socket cannot be started while its service runs.
        (ACTIVE, FAILED._replace(result="trigger-limit-hit"), "(trigger-limit-hit)", [RESET, RESTART]),
        (FAILED._replace(result="start-limit-hit"), LISTENING, "started too often in a row", [RESET]),
        (FAILED._replace(result="signal", exit_status=9), LISTENING, "ended by signal 9", [RESET]),
        (FAILED._replace(result="watchdog"), LISTENING, "the watchdog ended it", [RESET]),
        (FAILED._replace(result="new-word"), LISTENING, "its result is 'new-word'", [RESET]),
        (
            FAILED._replace(exit_status=78, status_text="systemd handed over no socket (…)"),
            LISTENING,
            "handed over no socket",
            [RESET, RESTART],
        ),
        # What does not mend itself is not swept away, nor is the socket that gave up on it blamed.
        (
            FAILED._replace(exit_status=78, status_text="/x/catalog.db is damaged"),
            FAILED._replace(result="service-start-limit-hit"),
            "queen-rbee.service cannot run: /x/catalog.db is damaged",
            [],
        ),
    ],
)
def test_a_failure_is_explained_and_mended_with_what_listens_again(
    bus: PlayedBus,
    root: Path,
    service: UnitState,
    listener: UnitState,
    said: str,
    cures: list[Command],
) -> None:
    bus.states |= {QUEEN_UNIT: service, QUEEN_SOCKET_UNIT: listener}

    (complaint,) = asked(check_units, bus, root)

    assert said in complaint.text
    assert list(complaint.cures) == cures
    assert complaint.hint
