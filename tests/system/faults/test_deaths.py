"""SIGKILL and SIGSTOP of the queen and of the hive: nobody hangs, nothing is lost, all comes back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from testbed.machine import Machine

from tests.bench.soak_add_hive import soak
from tests.system.commands import (
    CATALOG,
    HIVE,
    QUEEN,
    SOCKETS,
    active,
    add_hive,
    await_state,
    configure,
    main_pid,
    override,
    rbeectl,
    rows,
    unit,
)

KINDS = (
    "adding", "waking", "sending-heartbeat", "first-heartbeat", "asking-devices", "detected", "has-devices",
)  # fmt: skip
"""The narrated lines of the queen and her hive, in their order."""

KILL_AT = """
import json, os, signal, subprocess, sys, time

def processes():
    # Quicker than asking systemd: the story goes on meanwhile. A hive may be about to start.
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline:
        try:
            if found := open(f"/sys/fs/cgroup/rbee.slice/{sys.argv[1]}/cgroup.procs").read().split():
                return found
        except OSError:
            pass
    sys.exit("there is nothing to kill")

keeper = subprocess.Popen(
    ["setpriv", "--reuid=ada", "--regid=ada", "--init-groups", "rbeectl", "add-hive", "localhost", "--json"],
    stdout=subprocess.PIPE, text=True,
)
told, killed = [], []
for line in keeper.stdout:
    told.append(json.loads(line))
    if told[-1].get("kind") == sys.argv[2] and not killed:
        killed = processes()
        for pid in killed:
            os.kill(int(pid), signal.SIGKILL)
print(json.dumps({"code": keeper.wait(), "told": told, "killed": killed}))
"""


def add_and_kill(machine: Machine, name: str, kind: str) -> dict[str, Any]:
    """Add the hive as ada, and kill a unit's process as soon as she reads a line of this kind."""
    done = machine.run("python3", "-c", KILL_AT, name, kind, timeout=60)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def assert_whole(machine: Machine) -> None:
    """One row, online; all units up; a catalog that SQLite finds nothing wrong with."""
    (row,) = rows(machine)
    assert (row["id"], row["status"], row["wanted"]) == ("localhost", "online", 1)
    assert row["devices"]
    assert active(machine, QUEEN, HIVE, *SOCKETS) == ["active"] * 4
    checked = machine.run("sqlite3", f"file:{CATALOG}?mode=ro", "PRAGMA integrity_check").stdout
    assert checked == "ok\n"


def exits(machine: Machine, name: str) -> list[str]:
    """How the unit's main processes ended, as systemd says it."""
    told = machine.journal("_PID=1", f"UNIT={name}")
    return [entry["MESSAGE"] for entry in told if "Main process exited" in entry["MESSAGE"]]


@pytest.mark.parametrize("kind", ["queen-asleep", *KINDS])
def test_a_queen_killed_at_any_line_is_asked_again_and_the_hive_is_added(machine: Machine, kind: str) -> None:
    ran = add_and_kill(machine, QUEEN, kind)
    assert ran["killed"], ran
    assert exits(machine, QUEEN) == [
        "queen-rbee.service: Main process exited, code=killed, status=9/KILL",
    ]
    kinds = [line.get("kind") for line in ran["told"]]
    if kind in KINDS[-2:] and "queen-lost" not in kinds:
        # The lines that follow, and the story's end, may have left before she was hit.
        assert await_state(machine, "online")
    elif kind == "queen-asleep":
        assert kinds.index("queen-lost") < kinds.index("queen-awake")
    else:
        assert kinds.index("queen-lost") < kinds.index("queen-returned")
    assert ran["code"] == 0, ran
    assert ran["told"][-1]["hive"]["state"] == "online"
    add_hive(machine)
    assert_whole(machine)


@pytest.mark.parametrize("kind", ["waking", "sending-heartbeat", "asking-devices", "detected"])
def test_a_hive_killed_at_any_line_ends_the_story_with_a_word_and_comes_back(
    machine: Machine, kind: str
) -> None:
    if kind == "waking":
        # A moment in which there is a process to kill.
        override(machine, HIVE, "[Service]\nExecStartPre=sleep 0.2\n")
    ran = add_and_kill(machine, HIVE, kind)
    assert "9/KILL" in str(machine.journal("_PID=1", f"UNIT={HIVE}"))
    last = ran["told"][-1]
    assert last["event"] in ("done", "error"), "a story ends with a word"
    assert (ran["code"] == 0) == (last["event"] == "done")
    await_state(machine, "online")
    add_hive(machine)
    assert_whole(machine)


def test_a_kill_at_any_moment_leaves_nothing_that_the_same_command_does_not_mend(machine: Machine) -> None:
    # tests/bench/soak_add_hive goes on for longer.
    assert soak(machine, seed=3, kills=5, seconds=60) == 0


def test_killing_the_queen_again_and_again_ends_in_failed_and_the_same_command_mends_it(
    machine: Machine,
) -> None:
    add_hive(machine)
    (before,) = rows(machine)
    kill_until_failed = f"""
        until systemctl is-failed --quiet {QUEEN}; do
            systemctl kill --kill-whom=main --signal=KILL {QUEEN} 2>/dev/null || true
        done
    """
    machine.run("sh", "-c", kill_until_failed, timeout=60)
    # The service keeps the result of its last death; that there were too many is the socket's.
    assert "Start request repeated too quickly" in str(machine.journal("_PID=1", f"UNIT={QUEEN}"))
    assert unit(machine, SOCKETS[0])["Result"] == "service-start-limit-hit"
    add_hive(machine)
    assert_whole(machine)
    (after,) = rows(machine)
    assert after["created_at_ms"] == before["created_at_ms"]


def test_killing_the_hive_again_and_again_ends_in_failed_and_the_same_command_mends_it(
    machine: Machine,
) -> None:
    add_hive(machine)
    kill_until_failed = f"""
        until systemctl is-failed --quiet {HIVE}; do
            systemctl kill --kill-whom=main --signal=KILL {HIVE} 2>/dev/null || true
        done
    """
    machine.run("sh", "-c", kill_until_failed, timeout=60)
    assert "Start request repeated too quickly" in str(machine.journal("_PID=1", f"UNIT={HIVE}"))
    assert "killed by signal 9" in await_state(machine, "offline")["reason"]
    add_hive(machine)
    assert_whole(machine)


def test_a_queen_who_does_not_come_back_is_said_not_to(machine: Machine) -> None:
    machine.run("systemctl", "start", QUEEN)
    # From now on she takes longer to start than anybody should wait for.
    override(machine, QUEEN, "[Service]\nExecStartPre=sleep 20\n")
    ran = add_and_kill(machine, QUEEN, "adding")
    assert ran["killed"]
    last = ran["told"][-1]
    assert (ran["code"], last["event"]) == (1, "error")
    assert "the queen died, and was not back within 2 s" in last["detail"]


def until_online_after_the_queens_death(machine: Machine) -> float:
    """Kill the queen, and return the seconds from her end until the hive is online, without a person."""
    killed = main_pid(machine, QUEEN), main_pid(machine, HIVE)
    machine.run("kill", "-KILL", str(killed[0]))
    # The hive of a new process, under a new queen.
    new_pid = f"systemctl show -P MainPID {QUEEN} | grep -qvE '^(0|{killed[0]})$'"
    machine.run("sh", "-c", f"until {new_pid}; do sleep 0.01; done", timeout=10)
    await_state(machine, "online", seconds=10)
    assert not set(killed) & {main_pid(machine, QUEEN), main_pid(machine, HIVE)}
    exited = machine.journal("_PID=1", f"UNIT={QUEEN}", "CODE_FUNC=unit_log_process_exit")[-1]
    online = machine.journal("RBEE_EVENT=hive-online")[-1]
    return (int(online["__MONOTONIC_TIMESTAMP"]) - int(exited["__MONOTONIC_TIMESTAMP"])) / 1_000_000


def test_killing_the_queen_changes_no_row_and_all_is_online_within_3_s(machine: Machine) -> None:
    add_hive(machine)
    before = rows(machine)
    machine.cgroup.put_first()
    assert until_online_after_the_queens_death(machine) < 3
    # BindsTo= had taken the hive along.
    assert "Stopped" in str(machine.journal("_PID=1", f"UNIT={HIVE}"))
    assert rows(machine) == before


def test_a_killed_hive_is_known_by_systemds_word_and_online_again_without_a_person(machine: Machine) -> None:
    add_hive(machine)
    machine.cgroup.put_first()
    killed = main_pid(machine, HIVE)
    machine.run("kill", "-KILL", str(killed))
    new_pid = f"systemctl show -P MainPID {HIVE} | grep -qvE '^(0|{killed})$'"
    machine.run("sh", "-c", f"until {new_pid}; do sleep 0.01; done", timeout=5)
    await_state(machine, "online")
    (exited,) = machine.journal("_PID=1", f"UNIT={HIVE}", "CODE_FUNC=unit_log_process_exit")
    (offline,) = machine.journal("RBEE_EVENT=hive-offline")
    assert offline["MESSAGE"] == "the beehive localhost is offline: its process ended (killed by signal 9)"
    took = int(offline["__MONOTONIC_TIMESTAMP"]) - int(exited["__MONOTONIC_TIMESTAMP"])
    assert took < 2_000_000, f"the queen knew {took / 1000:.0f} ms after systemd"
    assert_whole(machine)


@pytest.mark.parametrize("name", [QUEEN, HIVE])
def test_a_daemon_that_is_alive_and_stuck_is_ended_by_the_watchdog_and_comes_back(
    machine: Machine, name: str
) -> None:
    configure(machine, "[Queen]\nHeartbeatIntervalSec=1s\nHeartbeatGraceSec=1s\n")
    assert "\nWatchdogSec=30s\n" in machine.run("systemctl", "cat", name).stdout
    override(machine, name, "[Service]\nWatchdogSec=8s\n")
    add_hive(machine)
    stuck = main_pid(machine, name)
    machine.run("kill", "-STOP", str(stuck))
    if name == HIVE:
        # Silence tells before the watchdog does.
        assert await_state(machine, "suspect")["reason"] == "no heartbeat for more than 2 s"
    new_pid = f"systemctl show -P MainPID {name} | grep -qvE '^(0|{stuck})$'"
    machine.run("sh", "-c", f"until {new_pid}; do sleep 0.1; done", timeout=25)
    told = [entry["MESSAGE"] for entry in machine.journal("_PID=1", f"UNIT={name}")]
    assert any("Watchdog timeout" in message for message in told)
    await_state(machine, "online")
    assert_whole(machine)


def test_restarting_the_queen_brings_the_hive_back_and_changes_nothing_of_it(machine: Machine) -> None:
    add_hive(machine)
    before = rows(machine)
    old = main_pid(machine, QUEEN), main_pid(machine, HIVE)
    machine.run("systemctl", "restart", QUEEN)
    await_state(machine, "online", seconds=3)
    assert not set(old) & {main_pid(machine, QUEEN), main_pid(machine, HIVE)}
    (row,) = rows(machine)
    assert {**row, "updated_at_ms": 0} == {**before[0], "updated_at_ms": 0}


def test_a_keeper_whose_queen_is_stuck_ends_within_its_deadline(machine: Machine) -> None:
    # Nothing ends her but the keeper's own patience.
    override(machine, QUEEN, "[Service]\nWatchdogSec=0\n")
    machine.run("systemctl", "start", QUEEN)
    machine.run("systemctl", "kill", "--signal=STOP", QUEEN)
    answer = rbeectl(machine, "list-hives", timeout=15)
    assert answer.code == 1
    assert "the queen was silent for 10 s" in answer.err
    # A queen who hangs is turned off all the same.
    assert rbeectl(machine, "shutdown").code == 0
    assert active(machine, QUEEN, HIVE, *SOCKETS) == ["inactive"] * 4
