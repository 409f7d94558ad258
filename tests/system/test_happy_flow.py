"""The eleven steps of adding this machine, each seen in what was told and in what became of the machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testbed.machine import Machine
from testbed.trees import Trees

from tests.system.commands import (
    HIVE,
    QUEEN,
    SOCKETS,
    STORY,
    Answer,
    active,
    add_hive,
    job_of,
    main_pid,
    processes_of,
    rbeectl,
    rows,
    unit,
    user_of,
    without_devices,
)


@dataclass
class HappyFlow:
    """A machine before and after ada added it, once for all tests of a suite."""

    machine: Machine
    reading: dict[str, Answer]
    after_reading: list[str]
    adding: Answer
    job: list[dict[str, Any]]


@pytest.fixture(scope="module")
def flow(suite: str, trees: Trees, debs: list[Path]) -> Iterator[HappyFlow]:
    with Machine(trees.installed(suite, debs)) as machine:
        reading = {verb: rbeectl(machine, verb) for verb in ("status", "list-hives", "list-devices")}
        after_reading = active(machine, QUEEN, HIVE)
        adding = rbeectl(machine, "add-hive", "localhost")
        yield HappyFlow(
            machine, reading, after_reading, adding, machine.journal(f"RBEE_JOB_ID={job_of(machine)}")
        )


def told_by(flow: HappyFlow, event: str) -> dict[str, Any]:
    (entry,) = [entry for entry in flow.job if entry["RBEE_EVENT"] == event]
    return entry


def test_step_1_looking_asks_systemd_and_wakes_nobody(flow: HappyFlow) -> None:
    assert flow.after_reading == ["inactive", "inactive"]
    assert {verb: answer.code for verb, answer in flow.reading.items()} == {
        "status": 3,
        "list-hives": 3,
        "list-devices": 3,
    }
    assert "the queen is asleep" in flow.reading["status"].out
    assert "the queen is asleep" in flow.reading["list-hives"].err


def test_step_2_the_queen_is_woken_as_a_unit_of_her_own_user(flow: HappyFlow) -> None:
    assert flow.adding.lines[:2] == STORY[:2]
    assert user_of(flow.machine, main_pid(flow.machine, QUEEN)) == "queen-rbee"
    assert unit(flow.machine, QUEEN)["SubState"] == "running"


def test_step_3_the_keeper_asks_and_the_whole_story_is_told_in_order(flow: HappyFlow) -> None:
    assert flow.adding.code == 0, flow.adding
    assert flow.adding.lines[: len(STORY)] == STORY
    assert without_devices(flow.adding.lines[len(STORY)]) == (
        "(queen bee)  the beehive localhost has a cpu (…) "
        "and model catalog has 0 models and 0 workers available"
    )
    assert flow.adding.lines[len(STORY) + 1] == "Hive localhost is Online"
    assert "\033" not in flow.adding.out  # plain in a pipe


def test_step_4_the_catalog_has_one_row_with_the_seeds_columns(flow: HappyFlow) -> None:
    (row,) = rows(flow.machine)
    assert (row["id"], row["host"], row["port"]) == ("localhost", "localhost", 8600)
    assert row["created_at_ms"] <= row["updated_at_ms"]
    assert told_by(flow, "adding")["_SYSTEMD_UNIT"] == QUEEN


def test_step_5_the_queen_wakes_the_hive_as_a_unit_of_its_own_user(flow: HappyFlow) -> None:
    assert user_of(flow.machine, main_pid(flow.machine, HIVE)) == "rbee-hive"
    # Nobody spawned it: its parent is PID 1.
    parent = flow.machine.run("ps", "-o", "ppid=", "-p", str(main_pid(flow.machine, HIVE))).stdout
    assert parent.strip() == "1"
    assert told_by(flow, "waking")["_PID"] == str(main_pid(flow.machine, QUEEN))


def test_step_6_the_first_heartbeat_is_the_hives_own_line_under_the_job(flow: HappyFlow) -> None:
    entry = told_by(flow, "sending-heartbeat")
    assert entry["_PID"] == str(main_pid(flow.machine, HIVE))
    assert entry["MESSAGE"] == "Sending first heartbeat to queen"


def test_step_7_the_queen_takes_the_first_heartbeat(flow: HappyFlow) -> None:
    entry = told_by(flow, "first-heartbeat")
    assert entry["_PID"] == str(main_pid(flow.machine, QUEEN))
    assert entry["RBEE_HIVE"] == "localhost"


def test_step_8_the_queen_asks_for_the_devices_after_the_heartbeat(flow: HappyFlow) -> None:
    events = [entry["RBEE_EVENT"] for entry in flow.job]
    assert events == [
        "adding",
        "catalog-changed",
        "waking",
        "sending-heartbeat",
        "first-heartbeat",
        "asking-devices",
        "detected",
        "catalog-changed",
        "has-devices",
    ]


def test_step_9_the_hive_answers_with_the_devices_of_this_machine(flow: HappyFlow) -> None:
    assert told_by(flow, "detected")["_PID"] == str(main_pid(flow.machine, HIVE))
    (hive,) = rbeectl(flow.machine, "list-devices", "--json").json["hives"]
    cpu = hive["devices"]["cpu"]
    assert cpu["threads"] == int(flow.machine.run("nproc", "--all").stdout)
    total = re.search(r"MemTotal:\s+(\d+) kB", flow.machine.run("cat", "/proc/meminfo").stdout)
    assert total
    assert cpu["ram_bytes"] == int(total[1]) * 1024
    assert hive["devices"]["model_catalog"] == hive["devices"]["worker_catalog"] == []


def test_step_10_devices_and_status_are_stored_and_shown(flow: HappyFlow) -> None:
    (row,) = rows(flow.machine)
    assert row["status"] == "online"
    (hive,) = rbeectl(flow.machine, "list-hives", "--json").json["hives"]
    assert hive["state"] == "online"
    assert json.loads(row["devices"]) == hive["devices"]
    shown = rbeectl(flow.machine, "list-hives")
    assert shown.lines[0].split() == [
        "HIVE",
        "STATE",
        "SINCE",
        "LAST",
        "BEAT",
        "REASON",
        "DEVICES",
        "WORKERS",
        "ADDRESS",
        "VERSION",
        "INTERVAL",
        "AGE",
        "LABELS",
    ]
    assert shown.lines[1].split()[:2] == ["localhost", "online"]
    assert "localhost:8600" in shown.lines[1]


def test_the_status_lines_and_the_journal_tell_the_same(flow: HappyFlow) -> None:
    assert unit(flow.machine, QUEEN)["StatusText"] == "hives: 1 online, 0 suspect, 0 offline"
    assert unit(flow.machine, HIVE)["StatusText"] == "queen at /run/rbee/queen.sock, heartbeat every 15 s"
    told = flow.machine.run(
        "journalctl", "-u", "queen-rbee", "-u", "rbee-hive", "-o", "cat"
    ).stdout.splitlines()
    # The keeper's own lines are the keeper's.
    for line in STORY[3:]:
        assert line[len("(queen bee)  ") :] in told


def test_the_journal_names_who_asked_and_explains_the_lines(flow: HappyFlow) -> None:
    entry = told_by(flow, "adding")
    ada = flow.machine.run("id", "-u", "ada").stdout.strip()
    assert (entry["RBEE_ACTOR_UID"], entry["PRIORITY"]) == (ada, "5")
    explained = flow.machine.run("journalctl", "-x", "--no-pager", f"MESSAGE_ID={entry['MESSAGE_ID']}").stdout
    assert "Subject: Hive localhost is being added" in explained
    assert f"rbeectl logs --job {entry['RBEE_JOB_ID']}" in explained


def test_step_11_shutdown_stops_hive_then_queen_then_sockets(flow: HappyFlow) -> None:
    flow.machine.cgroup.put_first()
    answer = rbeectl(flow.machine, "shutdown")
    assert answer.code == 0, answer
    assert answer.lines == [
        "(bee keeper) Shutting down queen",
        "(queen bee)  Shutting down all hives",
        "(bee hive)   Received shutdown signal, goodbye",
        "Queen and hives are off",
    ]
    assert active(flow.machine, HIVE, QUEEN, *SOCKETS) == ["inactive"] * 4
    assert processes_of(flow.machine, "queen-rbee", "rbee-hive") == []
    stopped = [
        unit(flow.machine, name, "InactiveEnterTimestampMonotonic")["InactiveEnterTimestampMonotonic"]
        for name in (HIVE, QUEEN, "queen-rbee.socket")
    ]
    assert stopped == sorted(stopped, key=int)
    # The whole cascade within 2 s, by systemd's own clock.
    (asked,) = flow.machine.journal("RBEE_EVENT=shutting-down-hives")
    assert int(stopped[-1]) - int(asked["__MONOTONIC_TIMESTAMP"]) < 2_000_000
    assert "off" in rbeectl(flow.machine, "list-hives").err


def test_after_a_shutdown_add_hive_wakes_everything_again(flow: HappyFlow) -> None:
    assert rbeectl(flow.machine, "shutdown").code == 0
    add_hive(flow.machine)
    assert active(flow.machine, QUEEN, HIVE, *SOCKETS) == ["active"] * 4
