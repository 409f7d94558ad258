"""rbeectl monitor in a booted machine: nothing missed, nothing twice, and nobody woken."""

from __future__ import annotations

import json
import queue
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from testbed.machine import Machine

from rbee import __version__
from tests.system.commands import (
    HIVE,
    QUEEN,
    SOCKETS,
    active,
    add_hive,
    configure,
    curl,
    rbeectl,
    type_in,
    unit,
)

PATIENCE = 20.0
FEED = "/run/queen-rbee/events"


class Monitor:
    """rbeectl monitor --json of ada's, read as it prints."""

    def __init__(self, machine: Machine, *arguments: str) -> None:
        self._machine = machine
        self.process = machine.popen("rbeectl", "monitor", "--json", *arguments, user="ada")
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()
        self.events: list[dict[str, Any]] = []
        """What was narrated, as far as it was read."""

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def next(self) -> dict[str, Any]:
        line = self._lines.get(timeout=PATIENCE)
        assert line, (self.process.wait(), self.process.stderr and self.process.stderr.read())
        told: dict[str, Any] = json.loads(line)
        if told["event"] == "narrated":
            self.events.append(told)
        return told

    def to(self, kind: str) -> dict[str, Any]:
        """What it tells, up to a kind of event; there must be no gap on the way."""
        while (told := self.next()).get("kind") != kind:
            assert told["event"] != "gap", told
        return told

    def to_queen(self, state: str) -> dict[str, Any]:
        """As to(), up to the keeper's own word that the queen is so."""
        while (told := self.next())["event"] != "queen" or told["state"] != state:
            assert told["event"] != "gap", told
        return told

    def end(self) -> int:
        """Ctrl-C; its exit code."""
        if self.process.poll() is None:
            self._machine.signal(self.process, signal.SIGINT)
        code = self.process.wait(PATIENCE)
        self._reading.join(PATIENCE)
        assert self.process.stderr is not None
        assert self.process.stderr.read() == ""
        return code


@contextmanager
def watching(machine: Machine, *arguments: str) -> Iterator[Monitor]:
    monitor = Monitor(machine, *arguments)
    try:
        yield monitor
    finally:
        code = monitor.end()
    assert code == 130  # as journalctl -f


def follow_each_other(events: list[dict[str, Any]]) -> bool:
    """One epoch, each number after that of the one before."""
    epoch, first = events[0]["id"].split("-")
    return [event["id"] for event in events] == [f"{epoch}-{int(first) + n}" for n in range(len(events))]


def kept(machine: Machine) -> list[dict[str, Any]]:
    """What stands in the queen's file."""
    return [json.loads(line) for line in machine.run("cat", FEED).stdout.splitlines()]


def is_asleep(machine: Machine) -> bool:
    shown = unit(machine, SOCKETS[0], "NAccepted", "NConnections")
    starts = unit(machine, QUEEN, "ActiveEnterTimestampMonotonic", "NRestarts")
    return (
        active(machine, QUEEN, SOCKETS[0]) == ["inactive", "active"]
        and (shown["NAccepted"], shown["NConnections"]) == ("0", "0")
        and starts["ActiveEnterTimestampMonotonic"] == "0"
    )


# Beside a queen who sleeps


def test_a_monitor_beside_a_sleeping_queen_leaves_her_asleep(machine: Machine) -> None:
    with watching(machine) as monitor, watching(machine, "localhost", "--since=all") as other:
        for one in (monitor, other):
            assert one.next() == {
                "event": "queen", "state": "asleep", "text": "queen is asleep, waiting until she wakes.",
            }  # fmt: skip
        # systemd signals this and that meanwhile: it reads its units anew, and a job of somebody's ends.
        machine.run("systemctl", "daemon-reload")
        machine.run("systemd-run", "--wait", "--quiet", "sleep", "3")
        machine.run("systemctl", "daemon-reexec")
        machine.run("systemd-run", "--wait", "--quiet", "sleep", "1")
        assert is_asleep(machine)
        assert monitor.process.poll() is None
        # And both hear of her when somebody wakes her, from her first word on.
        add_hive(machine)
        for one in (monitor, other):
            assert one.next() == {"event": "queen", "state": "awake", "text": "queen is awake."}
        assert monitor.next()["kind"] == "queen-started"
        monitor.to("has-devices")
        other.to("has-devices")
    assert follow_each_other(monitor.events)
    assert {event["hive"] for event in other.events} == {"localhost"}
    assert [event for event in monitor.events if event["hive"] == "localhost"] == other.events


def test_a_monitor_beside_a_queen_who_is_off_leaves_her_off(machine: Machine) -> None:
    rbeectl(machine, "shutdown")
    with watching(machine) as monitor:
        assert monitor.next()["state"] == "off"
        machine.run("systemd-run", "--wait", "--quiet", "sleep", "2")
        assert active(machine, QUEEN, *SOCKETS) == ["inactive"] * 3
        rbeectl(machine, "sleep")
        assert monitor.next()["state"] == "asleep"
        assert is_asleep(machine)


def test_who_stops_reading_ends_it_also_while_nothing_happens(machine: Machine) -> None:
    done = machine.run("sh", "-c", "timeout 15 rbeectl monitor | head -n 1", user="ada")
    assert done.stdout == "-- queen is asleep, waiting until she wakes. --\n"
    assert is_asleep(machine)


# Over her restarts


def test_over_a_restart_nothing_is_missed_and_nothing_told_twice(machine: Machine) -> None:
    add_hive(machine)
    with watching(machine, "--since=all") as monitor:
        monitor.to("has-devices")
        for _ in range(3):
            machine.run("systemctl", "restart", QUEEN)
            monitor.to("queen-stopping")
            monitor.to("queen-started")
            monitor.to("hive-online")
        assert follow_each_other(monitor.events)
        assert [without_kind(event) for event in monitor.events] == kept(machine)


def without_kind(event: dict[str, Any]) -> dict[str, Any]:
    """An event as it stands in the queen's file, which has sound ones alone."""
    told = event | {"event": event["kind"]}
    del told["kind"]
    assert told.pop("problem") is None
    return told


def test_over_kills_in_the_middle_of_a_burst_nothing_is_missed_and_nothing_told_twice(
    machine: Machine,
) -> None:
    add_hive(machine)
    # 50 starts a second would be given up; here they are to go on.
    burst = "while [ ! -e /run/enough ]; do rbeectl add-hive localhost -q || true; done"
    with watching(machine, "--since=all") as monitor:
        monitor.to("has-devices")
        bursts = [machine.popen("sh", "-c", burst, user="ada") for _ in range(3)]
        for _ in range(5):
            for _ in range(12):
                monitor.to("adding")
            machine.run("systemctl", "kill", "--signal=KILL", QUEEN)
            monitor.to("queen-started")
        machine.run("touch", "/run/enough")
        for process in bursts:
            process.wait(60)
        add_hive(machine)
        last = kept(machine)[-1]["id"]
        while monitor.events[-1]["id"] != last:
            assert monitor.next()["event"] != "gap"
    assert follow_each_other(monitor.events)
    assert [event["kind"] for event in monitor.events].count("queen-started") == 6
    # The journal, which is told first, has each line of the queen's, too.
    journal = {entry["MESSAGE"] for entry in machine.journal(f"_SYSTEMD_UNIT={QUEEN}")}
    assert {event["text"] for event in monitor.events if event["speaker"] == "queen bee"} <= journal


def test_over_sleep_and_shutdown_it_waits_and_goes_on(machine: Machine) -> None:
    add_hive(machine)
    with watching(machine, "--since=all") as monitor:
        monitor.to("has-devices")
        rbeectl(machine, "sleep")
        monitor.to_queen("asleep")
        assert monitor.events[-1]["kind"] in ("queen-stopping", "hive-offline", "catalog-changed")
        machine.run("systemd-run", "--wait", "--quiet", "sleep", "2")
        assert active(machine, QUEEN, HIVE) == ["inactive", "inactive"]
        rbeectl(machine, "wake")
        monitor.to_queen("awake")
        monitor.to("hive-online")
        rbeectl(machine, "shutdown")
        monitor.to_queen("off")
        add_hive(machine)
        monitor.to_queen("awake")
        monitor.to("has-devices")
    assert follow_each_other(monitor.events)


def test_a_queen_who_cannot_start_is_said_to_have_failed_and_why(machine: Machine) -> None:
    configure(machine, "[Queen]\nJobsMax=x\n")
    with watching(machine) as monitor:
        monitor.to_queen("asleep")
        assert rbeectl(machine, "wake").code == 78
        failed = monitor.to_queen("failed")
        assert "JobsMax=" in failed["text"]
        configure(machine, "")
        assert rbeectl(machine, "wake").code == 0
        monitor.to_queen("awake")
        assert monitor.next()["kind"] == "queen-started"


def test_what_is_lost_is_shown_as_a_gap(machine: Machine) -> None:
    add_hive(machine)
    with watching(machine, "-n", "1") as monitor:
        last = monitor.to("has-devices")
        machine.run("sh", "-c", f"rm {FEED}; systemctl kill --signal=KILL {QUEEN}")
        gap = monitor.next()
        first = monitor.next()
    assert (gap["event"], gap["after"], gap["first"]) == ("gap", last["id"], first["id"])
    assert first["kind"] == "queen-started"


def test_a_full_run_stops_nobody(machine: Machine) -> None:
    machine.run("sh", "-c", "mkdir /run/queen-rbee; mount -t tmpfs -o size=4k tmpfs /run/queen-rbee")
    with watching(machine) as monitor:
        monitor.to_queen("asleep")
        for _ in range(3):
            add_hive(machine)
        told = monitor.to("feed-in-ram")
        add_hive(machine)
        monitor.to("has-devices")
    assert "No space left on device" in told["text"]
    assert told["priority"] == 4
    assert follow_each_other(monitor.events)
    (entry,) = machine.journal("RBEE_EVENT=feed-in-ram")
    assert entry["MESSAGE"] == told["text"]


def test_open_streams_do_not_hold_up_her_stop(machine: Machine) -> None:
    add_hive(machine)
    # One that has stopped reading among them: SIGSTOP.
    monitors = [Monitor(machine, "-n", "1") for _ in range(12)]
    for monitor in monitors:
        monitor.next()  # what comes after it is not missed
    add_hive(machine)
    for monitor in monitors:
        monitor.to("has-devices")
    machine.signal(monitors[0].process, signal.SIGSTOP)
    machine.run("systemctl", "stop", QUEEN)
    shown = unit(machine, QUEEN)
    assert (shown["ActiveState"], shown["Result"]) == ("inactive", "success")
    machine.signal(monitors[0].process, signal.SIGCONT)
    for monitor in monitors:
        monitor.to("queen-stopping")
        monitor.to_queen("asleep")
        assert monitor.end() == 130
        assert follow_each_other(monitor.events)
    said = machine.run("journalctl", "-q", "--no-pager", "-p", "warning", "-u", QUEEN).stdout
    assert said == ""
    assert active(machine, QUEEN) == ["inactive"]


# What a person sees


def test_it_begins_with_the_last_events_as_lines_for_people(machine: Machine) -> None:
    add_hive(machine)
    told = type_in(machine, "timeout --signal=INT 3 rbeectl monitor -n 2 localhost", user="ada")
    assert told.code == 124
    assert told.err == ""
    first, second = told.lines
    changed = "hive localhost is online in the hive catalog, with its devices"
    assert first[8:] == f" localhost catalog-changed   {changed}"
    time.strptime(first[:8], "%H:%M:%S")
    assert second[8:].startswith(" localhost has-devices       the beehive localhost has a cpu (")
    everything = type_in(machine, "timeout --signal=INT 3 rbeectl monitor --since=-5min", user="ada").lines
    assert everything[0][8:] == f" -         queen-started     queen-rbee {__version__} is awake"
    assert everything[-1] == second


def test_mallory_is_told_what_to_do(machine: Machine) -> None:
    add_hive(machine)
    told = rbeectl(machine, "monitor", user="mallory")
    assert (told.code, told.out) == (77, "")
    assert "sudo adduser mallory rbee" in told.err


def test_curl_reads_the_feed_and_goes_on(machine: Machine) -> None:
    add_hive(machine)
    url = "http://localhost/v1/events"

    def ids(*asked: str) -> list[str]:
        silent = ("curl", "--silent", "--no-buffer", "--unix-socket", "/run/rbee/queen.sock")
        told = machine.run(*silent, "--max-time", "2", *asked, user="ada", check=False).stdout
        return [line.removeprefix("id: ") for line in told.splitlines() if line.startswith("id: ")]

    first = ids(f"{url}?since_ms=0")
    machine.run("systemctl", "restart", QUEEN)
    rest = ids("-H", f"Last-Event-ID: {first[3]}", url)
    assert rest[: len(first) - 3] == first[3:]
    assert len(rest) > len(first) - 3
    status, last = curl(machine, "/v1/events/last?limit=2&hive=localhost")
    assert (status, [event["hive"] for event in last["events"]]) == (200, ["localhost", "localhost"])
