"""The verbs of an operator's day in a booted machine: what is printed, and what becomes of the machine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest
from testbed.machine import Machine
from testbed.trees import Trees

from tests.system.commands import (
    CATALOG,
    HIVE,
    QUEEN,
    SOCKETS,
    active,
    add_hive,
    await_state,
    await_stopped,
    job_of,
    main_pid,
    rbeectl,
    tries,
    type_in,
    unit,
)


@pytest.fixture(scope="module")
def shared_machine(suite: str, trees: Trees, debs: list[object]) -> Iterator[Machine]:
    """A machine that ada has added, once for the verbs that only look."""
    with Machine(trees.installed(suite, debs)) as machine:  # type: ignore[arg-type]
        add_hive(machine)
        yield machine


# What changes the machine


def test_wake_wakes_her_and_whom_she_wants(machine: Machine) -> None:
    add_hive(machine)
    machine.run("systemctl", "stop", QUEEN)

    answer = rbeectl(machine, "wake")

    assert answer.lines == [
        "(bee keeper) queen is asleep, waking queen.",
        "(bee keeper) queen is awake and healthy.",
        "Queen is awake",
    ]
    assert active(machine, QUEEN) == ["active"]
    await_state(machine, "online")
    pid = main_pid(machine, QUEEN)
    assert rbeectl(machine, "wake").code == 0  # twice is fine
    assert main_pid(machine, QUEEN) == pid


def test_sleep_stops_queen_and_hive_and_leaves_the_sockets(machine: Machine) -> None:
    add_hive(machine)

    answer = rbeectl(machine, "sleep")

    assert (answer.code, answer.lines) == (0, ["(bee keeper) Sending queen to sleep", "Queen is asleep"])
    assert active(machine, QUEEN, HIVE) == ["inactive", "inactive"]
    assert active(machine, *SOCKETS) == ["active", "active"]
    assert machine.run("test", "-e", CATALOG).returncode == 0
    # Whoever speaks to her wakes her, and she wakes the hive that is wanted.
    add_hive(machine)


def test_sleep_from_off_is_asleep(machine: Machine) -> None:
    add_hive(machine)
    rbeectl(machine, "shutdown")
    assert active(machine, *SOCKETS) == ["inactive", "inactive"]

    assert rbeectl(machine, "sleep").lines == ["Queen is asleep"]

    assert active(machine, *SOCKETS, QUEEN, HIVE) == ["active", "active", "inactive", "inactive"]
    assert "the queen is asleep" in rbeectl(machine, "status").out


def test_mallory_neither_wakes_her_nor_sends_her_to_sleep(machine: Machine) -> None:
    add_hive(machine)
    assert rbeectl(machine, "sleep", user="mallory").code == 77
    assert active(machine, QUEEN, HIVE) == ["active", "active"]

    rbeectl(machine, "sleep")
    refused = rbeectl(machine, "wake", user="mallory")

    assert refused.code == 77
    assert "sudo adduser mallory rbee" in refused.err
    assert active(machine, QUEEN) == ["inactive"]


def test_without_waiting_the_job_goes_on_by_itself(machine: Machine) -> None:
    begun = rbeectl(machine, "add-hive", "localhost", "--no-wait", "--json")

    assert begun.code == 0
    job = json.loads(begun.lines[-1])
    assert job["event"] == "job"
    await_state(machine, "online")
    assert job_of(machine) == job["job_id"]

    assert rbeectl(machine, "shutdown", "--no-wait").lines == ["Queen and hives are being stopped"]
    await_stopped(machine, QUEEN, HIVE)


def test_a_timeout_ends_the_verb_and_not_the_job(machine: Machine) -> None:
    rbeectl(machine, "wake")
    # A hive that is stopped as it starts sends no heartbeat: the story waits for it.
    machine.run("sh", "-c", f"mkdir -p /run/systemd/system/{HIVE}.d")
    machine.run(
        "sh", "-c",
        f"printf '[Service]\\nExecStartPre=/bin/sleep 4\\n' >/run/systemd/system/{HIVE}.d/50-test.conf",
    )  # fmt: skip
    machine.run("systemctl", "daemon-reload")

    answer = rbeectl(machine, "add-hive", "localhost", "--timeout", "1s")

    assert answer.code == 1
    assert "it was not done within the 1 s of --timeout; job " in answer.err
    await_state(machine, "online", seconds=20)


# What only looks


def test_status_of_a_hive_has_its_state_devices_and_log(shared_machine: Machine) -> None:
    seen = rbeectl(shared_machine, "status", "localhost", user=None)

    assert seen.code == 0
    lines = [line.strip() for line in seen.lines]
    assert lines[0] == "● localhost - bee hive"
    assert lines[1].startswith("State: online since ")
    assert any(line.startswith("cpu: ") for line in lines)
    log = lines[lines.index("") + 1 :]
    assert 1 <= len(log) <= 10
    assert any("rbee-hive[" in line for line in log)
    # ada may not read the journal: the door of her group shows it.
    lines = rbeectl(shared_machine, "status", "localhost", "-n", "3").lines
    log = lines[lines.index("") + 1 :]
    assert len(log) == 3
    assert re.search(r" queen-rbee\[\d+\]: the beehive localhost has a cpu", log[-1])


def test_status_of_a_hive_that_died_exits_3_with_the_reason(machine: Machine) -> None:
    add_hive(machine)
    machine.run("systemctl", "stop", HIVE)
    await_state(machine, "offline")

    seen = rbeectl(machine, "status", "localhost")

    assert seen.code == 3
    assert "State: offline since " in seen.out
    assert "Reason: stopped by an administrator" in seen.out


def test_show_tells_the_properties_of_a_hive(shared_machine: Machine) -> None:
    shown = dict(line.split("=", 1) for line in rbeectl(shared_machine, "show", "localhost").lines)

    assert (shown["Id"], shown["State"], shown["Wanted"]) == ("localhost", "online", "yes")
    assert int(shown["CPUThreads"]) == int(shared_machine.run("nproc", "--all").stdout)
    assert shown["Version"] == rbeectl(shared_machine, "--version").out.split()[-1]
    assert rbeectl(shared_machine, "show", "localhost", "-p", "State", "--value").out == "online\n"
    assert rbeectl(shared_machine, "show", "nowhere").code == 4


def test_version_tells_all_three(shared_machine: Machine) -> None:
    version = rbeectl(shared_machine, "--version").out.split()[-1]

    assert rbeectl(shared_machine, "version", "--json").json == {
        "rbeectl": version,
        "queen": {"state": "awake", "version": version},
        "hives": [{"id": "localhost", "state": "online", "version": version}],
    }


def test_logs_are_the_journals(shared_machine: Machine) -> None:
    job = job_of(shared_machine)

    everything = rbeectl(shared_machine, "logs", "--json", user=None).lines
    of_the_job = [
        json.loads(line) for line in rbeectl(shared_machine, "logs", "--job", job, "--json", user=None).lines
    ]
    of_the_hive = rbeectl(shared_machine, "logs", "localhost", "--no-pager", user=None)
    explained = rbeectl(shared_machine, "logs", "-x", "-n", "5", user=None).out

    assert {entry["RBEE_JOB_ID"] for entry in of_the_job} == {job}
    assert {entry["_SYSTEMD_UNIT"] for entry in of_the_job} == {QUEEN, HIVE}
    assert len(everything) > len(of_the_job)
    assert "Started rbee-hive.service" in of_the_hive.out  # systemd's own words
    assert "Defined-By: rbee" in explained or "░░" in explained


def test_a_line_that_somebody_forged_is_not_in_the_logs(shared_machine: Machine) -> None:
    shared_machine.run(
        "logger", "--journald", input="MESSAGE=all is well\nRBEE_HIVE=localhost\n", user="mallory"
    )
    (forged,) = shared_machine.journal("MESSAGE=all is well")

    assert forged["RBEE_HIVE"] == "localhost"
    assert "all is well" not in rbeectl(shared_machine, "logs", "localhost", user=None).out


def test_logs_follow_until_they_are_interrupted(shared_machine: Machine) -> None:
    following = shared_machine.popen(
        "runuser", "-u", "root", "--", "timeout", "2", "rbeectl", "logs", "-f", "-n", "0"
    )
    out, _ = following.communicate(timeout=20)
    assert following.returncode == 124, out


def test_who_may_not_read_the_journal_is_pointed_to_what_the_queen_narrates(shared_machine: Machine) -> None:
    shared_machine.run("systemctl", "stop", "queen-rbee-logs.socket")
    refused = rbeectl(shared_machine, "logs", "-n", "1", "localhost")

    assert (refused.code, refused.out) == (77, "")
    assert "only root and the groups adm and systemd-journal" in refused.err
    instead, as_root = tries(refused)
    assert "localhost" in type_in(shared_machine, f"timeout 2 {instead}", user="ada").out
    assert type_in(shared_machine, as_root).code == 0
    shared_machine.run("usermod", "--append", "--groups", "systemd-journal", "ada")
    assert rbeectl(shared_machine, "logs", "-n", "1", "localhost").out != ""
    shared_machine.run("systemctl", "start", "queen-rbee-logs.socket")


def test_help_is_a_verb_and_a_verb_begun_is_suggested(shared_machine: Machine) -> None:
    assert (
        rbeectl(shared_machine, "help", "add-hive").out == rbeectl(shared_machine, "add-hive", "--help").out
    )
    assert rbeectl(shared_machine, "help").out == rbeectl(shared_machine, "--help").out
    listed = rbeectl(shared_machine, "list")
    assert listed.code == 2
    assert "did you mean list-hives or list-devices or list-workers or list-engines?" in listed.err


def on_80_columns(machine: Machine, command: str, **env: str) -> list[str]:
    """What ada sees of a command on a terminal of 80 columns and 24 lines."""
    typed = f"stty cols 80 rows 24; {command}"
    shown = machine.run(
        "script", "--quiet", "--return", "--command", typed, "/dev/null",
        user="ada", env={"TERM": "xterm", "NO_COLOR": "1", **env},
    ).stdout  # fmt: skip
    return [line.rstrip() for line in shown.splitlines()]


def test_80_columns_show_what_a_table_is_looked_at_for(shared_machine: Machine) -> None:
    assert rbeectl(shared_machine, "label", "localhost", f"rack={'x' * 60}").code == 0
    header, hive = on_80_columns(shared_machine, "rbeectl list-hives")
    assert header.split()[:6] == ["HIVE", "STATE", "SINCE", "LAST", "BEAT", "REASON"]
    assert "heartbeats received" in hive
    assert max(len(header), len(hive)) <= 80
    header, *_ = on_80_columns(shared_machine, "rbeectl list-devices")
    assert header.split()[:7] == ["HIVE", "DEVICE", "NAME", "USE", "MEMORY", "TEMP", "POWER"]
    for line in on_80_columns(shared_machine, "rbeectl audit -n 3")[1:]:
        assert "uid " in line or "localhost" in line
    assert rbeectl(shared_machine, "label", "localhost", "rack-").code == 0


PAGER = "#!/bin/sh\ncat >/tmp/paged\necho flags=$LESS\n"


def test_what_a_pager_gets_is_not_cut(shared_machine: Machine) -> None:
    for _ in range(13):
        assert rbeectl(shared_machine, "cordon", "localhost", f"a fan is loud {'x' * 100} and hot").code == 0
        assert rbeectl(shared_machine, "uncordon", "localhost").code == 0
    pager = "/usr/local/bin/pager-of-the-test"
    shared_machine.run("install", "-m", "0755", "/dev/stdin", pager, input=PAGER)
    # less, with what systemctl gives it: it chops lines, and scrolls to the right.
    assert "flags=FRSXMK" in on_80_columns(shared_machine, "rbeectl audit", SYSTEMD_PAGER=pager)

    paged = shared_machine.run("cat", "/tmp/paged").stdout.splitlines()
    assert len(paged) > 24
    assert any(f"{'x' * 100} and hot" in line for line in paged)


@pytest.mark.parametrize("verb", ["show", "status"])
def test_a_mistyped_hive_suggests_the_near_one(shared_machine: Machine, verb: str) -> None:
    answer = rbeectl(shared_machine, verb, "lcoalhost")

    assert answer.code == 4
    assert "did you mean localhost?" in answer.err


@pytest.mark.parametrize(
    "verb",
    [["status"], ["status", "localhost"], ["show", "localhost"], ["version"], ["logs", "-n", "1"]],
    ids=" ".join,
)
def test_looking_wakes_nobody(suite: str, trees: Trees, debs: list[object], verb: list[str]) -> None:
    with Machine(trees.installed(suite, debs)) as machine:  # type: ignore[arg-type]
        rbeectl(machine, *verb)
        accepted = [unit(machine, one, "NAccepted", "NConnections")["NAccepted"] for one in SOCKETS]
        assert accepted == ["0", "0"]
        assert active(machine, QUEEN, HIVE) == ["inactive", "inactive"]
