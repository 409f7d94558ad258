"""A thousand clients that are idle, slow or do not read: others are served meanwhile, and nothing is left."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path
from typing import Any

from testbed.machine import Machine

from tests.system.commands import (
    HIVE,
    QUEEN,
    add_hive,
    await_state,
    configure,
    curl,
    main_pid,
    override,
    rbeectl,
)

SCRIPT = "/usr/local/lib/bad_clients.py"
QUEEN_SOCKET, HIVE_SOCKET = "/run/rbee/queen.sock", "/run/rbee/hive.sock"

DROPPED = 10_000
"""Streams in one round here; tests/bench/soak_streams has 100,000."""


def bad_clients(
    machine: Machine, kind: str, count: int, *more: str, user: str | None = "ada", path: str = QUEEN_SOCKET
) -> subprocess.Popen[str]:
    """So many bad clients, once all have connected."""
    if machine.run("test", "-e", SCRIPT, check=False).returncode:
        machine.copy_in(Path(__file__).parents[1] / "bad_clients.py", SCRIPT)
    process = machine.popen("python3", SCRIPT, kind, str(count), path, *more, user=user, reads_input=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def ends(process: subprocess.Popen[str], timeout: float = 100) -> dict[str, int]:
    """How the bad clients ended: how many by which status."""
    out, err = process.communicate("end\n", timeout=timeout)
    assert process.returncode == 0, err
    found: dict[str, int] = json.loads(out)
    return found


def descriptors(machine: Machine, pid: int) -> int:
    return int(machine.run("sh", "-c", f"ls /proc/{pid}/fd | wc -l").stdout)


def await_descriptors(machine: Machine, pid: int, wanted: int) -> None:
    are_back = f"test $(ls /proc/{pid}/fd | wc -l) -le {wanted}"
    machine.run("sh", "-c", f"until {are_back}; do sleep 0.05; done", timeout=20)


def memory(machine: Machine, pid: int) -> int:
    """Resident, in KiB. Not Pss, which tells how many other machines run the same files."""
    told = machine.run("cat", f"/proc/{pid}/smaps_rollup").stdout
    return next(int(line.split()[1]) for line in told.splitlines() if line.startswith("Rss:"))


def one_hive(machine: Machine, user: str | None) -> dict[str, Any]:
    answer = rbeectl(machine, "list-hives", "--json", user=user)
    assert answer.code == 0, answer
    (hive,) = answer.json["hives"]
    found: dict[str, Any] = hive
    return found


def test_a_thousand_bad_clients_shut_nobody_out_and_leave_nothing_behind(machine: Machine) -> None:
    configure(machine, "[Queen]\nHeartbeatIntervalSec=1s\nHeartbeatGraceSec=4s\n")
    add_hive(machine)
    rbeectl(machine, "list-devices")  # she keeps the connection over which she asks what a machine does
    queen = main_pid(machine, QUEEN)
    before, hive_before = descriptors(machine, queen), one_hive(machine, "ada")
    after = []
    unread = bad_clients(machine, "unread", 250)
    for _ in range(2):
        # A process with a thousand, of which it may hold 256, and two that bring ada to over a thousand.
        silent = bad_clients(machine, "silent", 1000)
        slow, half = bad_clients(machine, "slow", 250), bad_clients(machine, "half", 250)
        assert one_hive(machine, "ada")["state"] == "online"
        add_hive(machine)
        assert rbeectl(machine, "list-devices", user=None).code == 0
        assert ends(silent) == {"503": 744, "408": 256}
        assert [ends(slow), ends(half)] == [{"408": 250}, {"408": 250}]
        await_descriptors(machine, queen, before + 250)
        after.append(memory(machine, queen))
    assert ends(unread) == {"cut": 250}
    await_descriptors(machine, queen, before)
    assert after[1] < 1.1 * after[0], f"KiB after each round: {after}"
    assert main_pid(machine, QUEEN) == queen
    hive_after = one_hive(machine, "ada")
    assert hive_after["last_beat_ms"] > hive_before["last_beat_ms"]
    assert hive_after["since_ms"] == hive_before["since_ms"], "it was not online all the time"
    assert machine.journal("RBEE_EVENT=hive-suspect") + machine.journal("RBEE_EVENT=hive-offline") == []


def test_who_has_too_many_connections_is_told_which_limit_it_is_and_the_others_get_through(
    machine: Machine,
) -> None:
    configure(machine, "[Queen]\nHeartbeatIntervalSec=1s\nHeartbeatGraceSec=4s\n")
    add_hive(machine)
    beat = one_hive(machine, "ada")["last_beat_ms"]
    queen = main_pid(machine, QUEEN)
    before = descriptors(machine, queen)
    held = [bad_clients(machine, "hold", 256, "/health") for _ in range(4)]
    # All that ada may have are there: she is refused, and told why.
    answer = rbeectl(machine, "list-hives")
    assert answer.code == 1, answer
    assert "1024 connections are held by user 1000, the limit for one user" in answer.err
    assert "try: Close one and try again." in answer.err
    status, problem = curl(machine, "/health")
    assert (status, problem["type"]) == (503, "urn:rbee:problem:too-many")
    hive = one_hive(machine, None)
    assert (hive["state"], hive["last_beat_ms"] >= beat) == ("online", True)
    assert [ends(process) for process in held] == [{"200": 256}] * 4
    await_descriptors(machine, queen, before)
    deadline = time.monotonic() + 10
    while one_hive(machine, "ada")["last_beat_ms"] == beat:  # the next one is due within a second
        assert time.monotonic() < deadline


def test_streams_that_are_dropped_and_readers_that_do_not_read_leave_nothing_behind(machine: Machine) -> None:
    # A job that lasts: the hive's unit takes for ever to start.
    configure(machine, "[Queen]\nHiveStartTimeoutSec=10min\n")
    override(machine, HIVE, "[Service]\nTimeoutStartSec=infinity\nExecStartPre=sleep infinity\n")
    _, job = curl(machine, "/add-hive", "-d", '{"host": "localhost"}')
    events = job["events"]
    queen = main_pid(machine, QUEEN)
    before = descriptors(machine, queen)

    # A process has its share of the streams, a user another, and root gets through.
    greedy = bad_clients(machine, "hold", 100, events)
    others = [bad_clients(machine, "hold", 64, events) for _ in range(2)]
    too_many, by_root = (
        bad_clients(machine, "hold", 1, events),
        bad_clients(machine, "hold", 1, events, user=None),
    )
    answer = rbeectl(machine, "add-hive", "localhost")
    assert answer.code == 1, answer
    assert "192 stories are being read by user 1000, the limit for one user" in answer.err
    assert ends(greedy) == {"200": 64, "503": 36}
    assert [ends(process) for process in (*others, too_many, by_root)] == [
        {"200": 64}, {"200": 64}, {"503": 1}, {"200": 1},
    ]  # fmt: skip
    await_descriptors(machine, queen, before)

    after = []
    for _ in range(2):
        dropping = bad_clients(machine, "drop", DROPPED, events)
        assert one_hive(machine, "ada")["state"] == "pending"
        assert ends(dropping) == {"200": DROPPED // 2, "dropped at once": DROPPED // 2}
        await_descriptors(machine, queen, before)
        after.append(memory(machine, queen))
    assert after[1] < 1.1 * after[0], f"KiB after each round: {after}"
    assert main_pid(machine, QUEEN) == queen


def test_bad_clients_of_the_hive_do_not_keep_the_queen_from_asking_it(machine: Machine) -> None:
    add_hive(machine)
    hive = main_pid(machine, HIVE)
    before = descriptors(machine, hive)
    silent = bad_clients(machine, "silent", 300, user=None, path=HIVE_SOCKET)
    slow = bad_clients(machine, "slow", 256, user=None, path=HIVE_SOCKET)
    devices = [line for line in add_hive(machine).lines if line.startswith("localhost ")]
    assert devices, "its devices are asked for again"
    after = []
    for _ in range(2):
        dropping = bad_clients(machine, "drop", 5000, "/health", user=None, path=HIVE_SOCKET)
        ends(dropping)
        after.append(memory(machine, hive))
    assert [ends(silent), ends(slow)] == [{"408": 256, "503": 44}, {"408": 256}]
    await_descriptors(machine, hive, before)
    assert after[1] < 1.1 * after[0], f"KiB after each round: {after}"
    assert main_pid(machine, HIVE) == hive
    assert await_state(machine, "online")["reason"] == "heartbeats received"
