"""Reboots: what was online is online again, what was turned off stays asleep, no more."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from testbed.machine import Machine

from tests.system.commands import (
    HIVE,
    QUEEN,
    SOCKETS,
    active,
    add_hive,
    await_state,
    main_pid,
    override,
    rbeectl,
    rows,
    unit,
)

MARK = "/var/lib/queen-rbee/wanted"


def has_mark(machine: Machine) -> bool:
    return machine.run("test", "-e", MARK, check=False).returncode == 0


def test_what_was_online_is_online_after_a_reboot(machine: Machine) -> None:
    add_hive(machine)
    before = rbeectl(machine, "list-hives", "--json").json["hives"][0]
    machine.reboot()
    after = await_state(machine, "online")
    assert (after["created_at_ms"], after["devices"]) == (before["created_at_ms"], before["devices"])
    assert active(machine, QUEEN, HIVE, *SOCKETS) == ["active"] * 4
    assert unit(machine, "queen-rbee-resume.service")["Result"] == "success"


def never_added(machine: Machine) -> None:
    assert rbeectl(machine, "list-hives").code == 3


def shut_down(machine: Machine) -> None:
    add_hive(machine)
    assert rbeectl(machine, "shutdown").code == 0


def stopped(machine: Machine) -> None:
    add_hive(machine)
    machine.run("systemctl", "stop", QUEEN)


def hive_stopped(machine: Machine) -> None:
    add_hive(machine)
    machine.run("systemctl", "stop", HIVE)
    await_state(machine, "offline")


def removed(machine: Machine) -> None:
    add_hive(machine)
    assert rbeectl(machine, "remove-hive", "localhost").code == 0


def shut_down_while_stuck(machine: Machine) -> None:
    add_hive(machine)
    machine.run("systemctl", "kill", "--signal=STOP", QUEEN)
    assert rbeectl(machine, "shutdown").code == 0


def shut_down_after_a_crash(machine: Machine) -> None:
    override(machine, QUEEN, "[Service]\nRestart=no\n")
    add_hive(machine)
    machine.run("kill", "-KILL", str(main_pid(machine, QUEEN)))
    failed = f"systemctl is-failed --quiet {QUEEN}"
    machine.run("sh", "-c", f"until {failed}; do sleep 0.02; done", timeout=10)
    assert has_mark(machine), "a crash is no reason to sleep"
    assert rbeectl(machine, "shutdown").code == 0


@pytest.mark.parametrize(
    "before",
    [never_added, shut_down, stopped, hive_stopped, removed, shut_down_while_stuck, shut_down_after_a_crash],
)
def test_what_was_turned_off_is_asleep_after_a_reboot_no_more(
    machine: Machine, before: Callable[[Machine], None]
) -> None:
    before(machine)
    assert not has_mark(machine)
    machine.reboot()
    assert active(machine, QUEEN, HIVE, *SOCKETS) == ["inactive", "inactive", "active", "active"]
    skipped = unit(machine, "queen-rbee-resume.service", "ConditionResult")
    assert (skipped["ActiveState"], skipped["ConditionResult"]) == ("inactive", "no")
    add_hive(machine)
    assert has_mark(machine)


def test_a_restart_keeps_the_word_for_the_next_boot(machine: Machine) -> None:
    add_hive(machine)
    machine.run("systemctl", "restart", QUEEN)
    await_state(machine, "online")
    assert has_mark(machine)
    machine.run("kill", "-KILL", str(main_pid(machine, QUEEN)))
    assert has_mark(machine)


def test_an_administrator_may_have_her_sleep_after_each_boot(machine: Machine) -> None:
    add_hive(machine)
    machine.run("systemctl", "disable", "queen-rbee-resume.service")
    before = rows(machine)
    machine.reboot()
    assert active(machine, QUEEN, HIVE) == ["inactive", "inactive"]
    add_hive(machine)
    assert rows(machine)[0]["created_at_ms"] == before[0]["created_at_ms"]
