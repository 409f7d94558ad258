"""What stops what: shutdown, BindsTo=, an administrator, a client that will not let go."""

from __future__ import annotations

import json
import signal
import time

import pytest
from testbed.machine import Machine

from tests.system.commands import (
    HIVE,
    QUEEN,
    SOCKETS,
    active,
    add_hive,
    await_state,
    await_stopped,
    main_pid,
    override,
    processes_of,
    rbeectl,
    rows,
    unit,
)


def test_stopping_the_queen_takes_the_hive_with_her(machine: Machine) -> None:
    add_hive(machine)
    machine.run("systemctl", "stop", QUEEN)
    assert active(machine, QUEEN, HIVE) == ["inactive", "inactive"]
    assert processes_of(machine, "queen-rbee", "rbee-hive") == []


def test_a_killed_queen_that_may_not_restart_leaves_no_hive(machine: Machine) -> None:
    override(machine, QUEEN, "[Service]\nRestart=no\n")
    add_hive(machine)
    machine.cgroup.put_first()
    began = time.monotonic()
    machine.run("kill", "-KILL", str(main_pid(machine, QUEEN)))
    await_stopped(machine, HIVE, QUEEN)
    assert time.monotonic() - began < 2, "the cascade took longer than 2 s"
    assert active(machine, QUEEN, HIVE) == ["failed", "inactive"]


def test_a_stopped_hive_stays_stopped_and_is_said_to_be(machine: Machine) -> None:
    add_hive(machine)
    machine.run("systemctl", "stop", HIVE)
    hive = await_state(machine, "offline")
    assert hive["reason"] == "stopped by an administrator"
    assert hive["since_ms"] > 0
    machine.run("systemctl", "restart", QUEEN)
    assert await_state(machine, "offline")["reason"] == "stopped by an administrator"
    assert active(machine, QUEEN, HIVE) == ["active", "inactive"]
    assert unit(machine, QUEEN)["StatusText"] == "hives: 0 online, 0 suspect, 1 offline"
    add_hive(machine)
    assert active(machine, HIVE) == ["active"]


def test_a_client_that_reconnects_all_the_time_does_not_wake_her_again(machine: Machine) -> None:
    add_hive(machine)
    # Its first answer is awaited, so that it is at it when the shutdown begins.
    loop = """
import socket, sys, time
while True:
    try:
        with socket.socket(socket.AF_UNIX) as client:
            client.connect("/run/rbee/queen.sock")
            client.sendall(b"GET /health HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n")
            if client.recv(4096):
                print("answered", flush=True)
    except OSError:
        time.sleep(0.001)
"""
    client = machine.popen("python3", "-c", loop, user="ada")
    assert client.stdout is not None
    assert client.stdout.readline() == "answered\n"
    machine.cgroup.put_first()
    began = time.monotonic()
    answer = rbeectl(machine, "shutdown")
    took = time.monotonic() - began
    assert answer.code == 0, answer
    assert active(machine, QUEEN, HIVE, *SOCKETS) == ["inactive"] * 4
    # Nobody comes back while the client goes on.
    machine.run("systemd-run", "--wait", "--quiet", "sleep", "1")
    assert active(machine, QUEEN, HIVE, *SOCKETS) == ["inactive"] * 4
    assert took < 3, f"the cascade took {took:.1f} s, rbeectl's start included"
    machine.signal(client, signal.SIGKILL)


def test_an_open_stream_does_not_hold_up_the_shutdown_and_ends_with_a_word(machine: Machine) -> None:
    add_hive(machine)
    # A job that does not end by itself: the hive's unit takes long to start.
    machine.run("systemctl", "stop", HIVE)
    override(machine, HIVE, "[Service]\nExecStartPre=sleep 20\n")
    watching = machine.popen("rbeectl", "add-hive", "localhost", "--json", user="ada")
    assert watching.stdout is not None
    while json.loads(watching.stdout.readline()).get("kind") != "waking":
        pass
    machine.cgroup.put_first()
    began = time.monotonic()
    assert rbeectl(machine, "shutdown").code == 0
    assert time.monotonic() - began < 3
    rest, _ = watching.communicate(timeout=10)
    last = json.loads(rest.splitlines()[-1])
    assert last["event"] == "error", "a story always ends with a word"
    assert watching.returncode == 1


def test_a_client_that_holds_a_connection_cannot_hold_up_the_stop(machine: Machine) -> None:
    add_hive(machine)
    # Half a request, and an idle connection; printed when both are there.
    hold = """
import socket, time
half, idle = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
for client in (half, idle):
    client.connect("/run/rbee/queen.sock")
half.sendall(b"POST /add-hive HTTP/1.1\\r\\nHost: localhost\\r\\nContent-Length: 99\\r\\n\\r\\n{")
print("held", flush=True)
time.sleep(60)
"""
    client = machine.popen("python3", "-c", hold, user="ada")
    assert client.stdout is not None
    assert client.stdout.readline() == "held\n"
    machine.run("systemctl", "stop", QUEEN, timeout=4)
    assert unit(machine, QUEEN)["Result"] == "success"
    machine.signal(client, signal.SIGKILL)


def test_a_queen_whose_bus_goes_away_makes_room_for_one_that_hears(machine: Machine) -> None:
    add_hive(machine)
    before = main_pid(machine, QUEEN)
    machine.run("systemctl", "restart", "dbus.service")
    another = f"systemctl show -P MainPID {QUEEN} | grep -qvE '^(0|{before})$'"
    machine.run("sh", "-c", f"until {another}; do sleep 0.05; done", timeout=20)
    assert await_state(machine, "online", seconds=20)["reason"] == "heartbeats received"
    machine.run("systemctl", "stop", HIVE)
    assert await_state(machine, "offline")["reason"] == "stopped by an administrator"


def test_adding_a_hive_does_not_undo_a_shutdown_that_is_under_way(machine: Machine) -> None:
    override(machine, HIVE, "[Service]\nExecStopPost=sleep 2\n")
    add_hive(machine)
    stopping = machine.popen("rbeectl", "shutdown", user="ada")
    machine.run("sh", "-c", f"until systemctl show -P ActiveState {HIVE} | grep -q deactivating; do :; done")
    story = machine.run(
        *("curl", "--silent", "--unix-socket", "/run/rbee/queen.sock", "-H", "Accept: text/event-stream"),
        *("-d", '{"host": "localhost"}', "http://localhost/add-hive"),
        user="ada",
        check=False,
    ).stdout
    out, err = stopping.communicate(timeout=20)
    assert stopping.returncode == 0, (out, err)
    assert active(machine, QUEEN, HIVE, *SOCKETS) == ["inactive"] * 4
    if story:  # her socket may be closed already
        assert "event: error" in story
        assert "urn:rbee:problem:stopping" in story


@pytest.mark.parametrize("units", [(QUEEN, SOCKETS[0]), (QUEEN,), (HIVE,)], ids=" ".join)
def test_a_request_that_comes_too_late_for_the_hive_does_not_undo_a_stop(
    machine: Machine, units: tuple[str, ...]
) -> None:
    override(machine, HIVE, "[Service]\nExecStopPost=sleep 2\n")
    add_hive(machine)
    stopping = machine.popen("systemctl", "stop", *units)
    await_sub_state(machine, HIVE, "stop-post")
    connect_to_the_hive(machine)
    out, err = stopping.communicate(timeout=20)
    assert stopping.returncode == 0, (out, err)
    assert_nothing_starts(machine)
    assert active(machine, *units, HIVE) == ["inactive"] * (len(units) + 1)
    if QUEEN not in units:
        assert await_state(machine, "offline")["reason"] == "stopped by an administrator"
    machine.run("systemctl", "start", SOCKETS[0])
    add_hive(machine)


def test_a_request_that_waits_for_a_hive_to_start_does_not_undo_a_stop(machine: Machine) -> None:
    # Until a service has started, systemd itself looks at its socket.
    override(machine, HIVE, "[Service]\nExecStartPre=sleep 20\nExecStopPost=sleep 2\n")
    rbeectl(machine, "wake")
    adding = machine.popen("rbeectl", "add-hive", "localhost", user="ada")
    await_sub_state(machine, HIVE, "start-pre")
    stopping = machine.popen("systemctl", "stop", QUEEN, SOCKETS[0])
    await_sub_state(machine, HIVE, "stop-post")
    connect_to_the_hive(machine)
    out, err = stopping.communicate(timeout=20)
    assert stopping.returncode == 0, (out, err)
    assert_nothing_starts(machine)
    # To systemd a start that was cut off is a failure.
    assert active(machine, QUEEN, HIVE, *SOCKETS) == ["inactive", "failed", "inactive", "inactive"]
    adding.communicate(timeout=20)
    assert adding.returncode == 1


def await_sub_state(machine: Machine, name: str, state: str) -> None:
    is_in_it = f"systemctl show -P SubState {name} | grep -qx {state}"
    machine.run("sh", "-c", f"until {is_in_it}; do sleep 0.02; done", timeout=10)


def connect_to_the_hive(machine: Machine) -> None:
    """As the queen does whose request is under way while the hive is being stopped."""
    connect = 'import socket; socket.socket(socket.AF_UNIX).connect("/run/rbee/hive.sock")'
    machine.run("python3", "-c", connect, user="queen-rbee")


def assert_nothing_starts(machine: Machine) -> None:
    """systemd handles what comes to its sockets before a request of its own that comes later."""
    machine.run("systemd-run", "--wait", "--quiet", "true")
    assert machine.run("systemctl", "list-jobs", "--no-legend").stdout == ""


def test_shutting_down_twice_and_from_every_state_is_no_error(machine: Machine) -> None:
    assert rbeectl(machine, "shutdown").code == 0  # asleep
    assert active(machine, *SOCKETS) == ["inactive"] * 2
    assert rbeectl(machine, "shutdown").code == 0  # off
    add_hive(machine)
    assert rbeectl(machine, "shutdown").code == 0  # awake
    assert rbeectl(machine, "status").code == 3


def test_a_shutdown_by_another_client_stops_everything(machine: Machine) -> None:
    add_hive(machine)
    machine.run(
        "curl", "--silent", "--fail", "--unix-socket", "/run/rbee/queen.sock", "-X", "POST",
        "http://localhost/shutdown", user="ada",
    )  # fmt: skip
    await_stopped(machine, QUEEN, *SOCKETS)
    assert active(machine, QUEEN, HIVE, *SOCKETS) == ["inactive"] * 4


def test_removing_stops_the_hive_and_forgets_it(machine: Machine) -> None:
    add_hive(machine)
    answer = rbeectl(machine, "remove-hive", "localhost")
    assert answer.code == 0, answer
    assert answer.lines[-2:] == [
        "(queen bee)  the beehive localhost is stopped and no longer in the hive catalog",
        "Hive localhost is removed",
    ]
    assert active(machine, QUEEN, HIVE) == ["active", "inactive"]
    assert rows(machine) == []
    assert rbeectl(machine, "remove-hive", "localhost").code == 0
    assert rbeectl(machine, "list-devices", "localhost").code == 4
    add_hive(machine)
    (row,) = rows(machine)
    assert row["status"] == "online"
