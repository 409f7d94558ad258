"""Who is alive: by what a hive's machine, its link and its process do, as the queen can know it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed.machine import Machine
from testbed.relay import Relay
from testbed.trees import Trees

from tests.system.commands import HIVE, QUEEN, configure, curl, override, rbeectl
from tests.system.fleet.conftest import MakeFleet
from tests.system.fleet.faults import Direction, dropped
from tests.system.fleet.fleet import (
    GRACE,
    INTERVAL,
    PORT,
    QUICK,
    SUITES,
    Fleet,
    at,
    fleet_of,
    hive_pid,
)

PATIENCE = INTERVAL + GRACE
"""Seconds without a beat after which a hive is offline."""

SLACK = 2.0
"""Seconds more that a busy computer may take."""


@pytest.fixture(scope="module")
def fleet(trees: Trees, debs: list[Path]) -> Iterator[Fleet]:
    """A queen and two hives, on either Debian, whom each test leaves online."""
    with fleet_of(trees, debs, queen=SUITES[0], hives=2) as fleet:
        yield fleet


HOUR = 3600

FAKED = """[Service]
Environment=LD_PRELOAD=%s FAKETIME_TIMESTAMP_FILE=/run/clock FAKETIME_NO_CACHE=1
"""


def set_clock(machine: Machine, ahead: int) -> None:
    """Let who has FAKED see all clocks so many seconds ahead."""
    machine.run("sh", "-c", f"echo '{ahead:+d}' > /run/clock.new && mv /run/clock.new /run/clock")


def count(fleet: Fleet, event: str, hive: str = "gpu1") -> int:
    return len(fleet.told(event, hive=hive))


def asked_for_jobs(fleet: Fleet) -> int:
    return sum("RBEE_JOB_ID" in entry for entry in fleet.told("asking-devices", hive="gpu1"))


def ask_who_stopped(fleet: Fleet, pid: str) -> str:
    """Stop gpu1's hive, and have a job ask it for its devices; returns the path of the job's story.

    It is asked while it counts as online, for PATIENCE: rbeectl may need longer to start on a busy computer.
    """
    before = asked_for_jobs(fleet)
    fleet.hives["gpu1"].run("kill", "-STOP", pid)
    status, job = curl(fleet.queen, "/add-hive", "--json", '{"host": "gpu1"}')
    assert status == 202, job
    deadline = time.monotonic() + 10
    while asked_for_jobs(fleet) == before:
        assert time.monotonic() < deadline, "nothing was asked"
        time.sleep(0.02)  # the journal of another machine: nothing here tells of it
    return str(job["events"])


def assert_story_ends(fleet: Fleet, events: str, *, seconds: float) -> None:
    """With a job that has failed, as the hive cannot answer any more."""
    story = fleet.queen.run(
        "curl", "--silent", "--show-error", "--unix-socket", "/run/rbee/queen.sock",
        "--max-time", str(seconds), f"http://localhost{events}", user="ada",
    ).stdout  # fmt: skip
    assert (
        "the connection of the beehive gpu1 closed before it answered" in story.rpartition("event: error")[2]
    )


def test_a_hive_that_is_killed_is_offline_at_once_and_back_soon(fleet: Fleet) -> None:
    gpu1, before = fleet.hives["gpu1"], count(fleet, "hive-offline")
    killed = time.time()
    gpu1.run("kill", "-KILL", hive_pid(gpu1))

    offline = fleet.await_told("hive-offline", count=before + 1, hive="gpu1")
    print(f"known to the queen {1000 * (at(offline) - killed):.0f} ms after the order to kill")
    assert offline["MESSAGE"] == "the beehive gpu1 is offline: its connection closed"
    assert at(offline) - killed < SLACK
    # systemd starts another, which dials by itself.
    fleet.await_state("gpu1", "online")


def test_a_link_that_is_cut_is_noticed_and_heals(fleet: Fleet) -> None:
    gpu1, before = fleet.hives["gpu1"], count(fleet, "hive-offline")
    pid = hive_pid(gpu1)
    cut = time.time()
    gpu1.cut()
    try:
        offline = fleet.await_told("hive-offline", count=before + 1, hive="gpu1")
        assert offline["MESSAGE"] == f"the beehive gpu1 is offline: no heartbeat for {PATIENCE:g} s"
        assert at(offline) - cut < PATIENCE + SLACK
        # It was suspect before it was given up.
        assert at(fleet.told("hive-suspect", hive="gpu1")[-1]) < at(offline)
        assert fleet.states() == {"gpu1": "offline", "gpu2": "online"}
        said = rbeectl(fleet.queen, "show", "gpu1", "-p", "StateReason", "--value").out
        assert said == f"no heartbeat for {PATIENCE:g} s\n"
    finally:
        gpu1.mend()
    fleet.await_state("gpu1", "online", 20)
    # The same process all the while: nobody started anything.
    assert hive_pid(gpu1) == pid


def test_a_hive_that_is_frozen_is_offline_and_thaws(fleet: Fleet) -> None:
    """As BlueChi's agent is not, whose connection stands; and as a laptop does that suspends."""
    gpu1, before = fleet.hives["gpu1"], count(fleet, "hive-offline")
    stopped = time.time()
    gpu1.run("kill", "-STOP", hive_pid(gpu1))
    assert gpu1.run("ps", "-o", "stat=", "-p", hive_pid(gpu1)).stdout.startswith("T")
    try:
        offline = fleet.await_told("hive-offline", count=before + 1, hive="gpu1")
        assert at(offline) - stopped < PATIENCE + SLACK
        # Nobody hangs on it.
        looked = rbeectl(fleet.queen, "list-devices")
        assert looked.code == 0
    finally:
        gpu1.run("kill", "-CONT", hive_pid(gpu1))
    fleet.await_state("gpu1", "online")


def test_a_laptop_that_suspends_is_offline_and_back_when_it_wakes(fleet: Fleet) -> None:
    gpu2 = fleet.hives["gpu2"]
    # A suspended machine's monotonic clock stands; a frozen one's goes on, and its systemd would miss the
    # watchdog's word for as long as that.
    override(gpu2, HIVE, "[Service]\nWatchdogSec=1min\n")
    gpu2.run("systemctl", "restart", HIVE)
    fleet.await_state("gpu2", "online")
    before = count(fleet, "hive-offline", "gpu2")
    pid = hive_pid(gpu2)
    with gpu2.suspended():
        fleet.await_told("hive-offline", count=before + 1, hive="gpu2")
        assert fleet.views()["gpu2"]["reason"] == f"no heartbeat for {PATIENCE:g} s"
        # For longer than its connections take to be given up by anybody.
        fleet.queen.run("sleep", "8")
    fleet.await_state("gpu2", "online", 20)
    assert hive_pid(gpu2) == pid
    assert fleet.states() == {"gpu1": "online", "gpu2": "online"}


def test_a_partition_that_heals_after_an_hour_is_over(make_fleet: MakeFleet) -> None:
    """By clocks that go on by an hour meanwhile, for queen and hive alike, the monotonic ones too."""
    fleet = make_fleet(queen=SUITES[0], hives=1)
    queen, gpu1 = fleet.queen, fleet.hives["gpu1"]
    for machine, name in ((queen, QUEEN), (gpu1, HIVE)):
        set_clock(machine, 0)
        library = machine.run("sh", "-c", "ls /usr/lib/*/faketime/libfaketime.so.1").stdout.strip()
        override(machine, name, FAKED % library)
        machine.run("systemctl", "restart", name)
    fleet.await_state("gpu1", "online")
    pid = hive_pid(gpu1)
    gpu1.cut()
    fleet.await_state("gpu1", "offline")
    before = fleet.views()["gpu1"]
    for machine in (queen, gpu1):
        set_clock(machine, HOUR)
    # Its word on a try that failed after the hour.
    failed = "in time|did not answer|reached"
    told = f"until systemctl show -P StatusText {HIVE} | grep -qE '{failed}'; do sleep 0.1; done"
    gpu1.run("sh", "-c", told, timeout=30)
    assert fleet.views()["gpu1"]["state"] == "offline"
    gpu1.mend()
    back = fleet.await_state("gpu1", "online", 30)
    assert hive_pid(gpu1) == pid
    # An hour has passed for her, from the last beat before to the first one after.
    assert back["last_beat_ms"] - before["last_beat_ms"] > 1000 * HOUR


@pytest.mark.parametrize("direction", ["in", "out"])
def test_a_link_that_has_lost_one_direction_is_no_link(fleet: Fleet, direction: Direction) -> None:
    gpu1, before = fleet.hives["gpu1"], count(fleet, "hive-offline")
    with dropped(gpu1, direction, port=PORT) as fault:
        lost = time.time()
        offline = fleet.await_told("hive-offline", count=before + 1, hive="gpu1")
        assert at(offline) - lost < PATIENCE + SLACK
        assert fault.packets > 0
    fleet.await_state("gpu1", "online", 20)


def test_a_cut_while_something_is_asked_ends_for_everybody(fleet: Fleet) -> None:
    gpu1, before = fleet.hives["gpu1"], count(fleet, "hive-offline")
    story = ask_who_stopped(fleet, hive_pid(gpu1))  # the request is on its way, and no answer
    gpu1.cut()
    try:
        assert_story_ends(fleet, story, seconds=PATIENCE + SLACK + 5)
        offline = fleet.await_told("hive-offline", count=before + 1, hive="gpu1")
        assert "no heartbeat" in offline["MESSAGE"]
    finally:
        gpu1.run("kill", "-CONT", hive_pid(gpu1))
        gpu1.mend()
    fleet.await_state("gpu1", "online", 20)


def test_a_death_while_something_is_asked_ends_for_who_asked(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    pid = hive_pid(gpu1)
    story = ask_who_stopped(fleet, pid)
    gpu1.run("kill", "-KILL", pid)
    assert_story_ends(fleet, story, seconds=10)
    fleet.await_state("gpu1", "online")


def test_hives_are_back_soon_after_the_queen(fleet: Fleet) -> None:
    times = []
    for _ in range(3):
        before = {name: count(fleet, "hive-online", name) for name in fleet.hives}
        started = len(fleet.told("queen-started"))
        fleet.queen.run(
            "kill", "-KILL", fleet.queen.run("systemctl", "show", "-P", "MainPID", QUEEN).stdout.strip()
        )
        queen = fleet.await_told("queen-started", count=started + 1)
        for name in fleet.hives:
            back = fleet.await_told("hive-online", count=before[name] + 1, hive=name)
            assert at(back) - at(queen) < 5
            times.append(1000 * (at(back) - at(queen)))
    print(f"online {statistics.median(times):.0f} ms after she serves, {max(times):.0f} at the most")


def test_what_is_not_known_yet_is_called_so(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    gpu1.cut()
    try:
        fleet.await_state("gpu1", "offline")
        fleet.queen.run("systemctl", "restart", QUEEN)
        restarted = time.time()
        view = fleet.views()["gpu1"]
        assert view["state"] == "unknown" or time.time() - restarted > PATIENCE
        view = fleet.await_state("gpu1", "offline")
        assert view["reason"] == "no heartbeat since the queen started"
    finally:
        gpu1.mend()
    fleet.await_state("gpu1", "online", 20)


def test_a_slow_and_lossy_line_is_no_death(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    with Relay((fleet.bridge.host("slow"), PORT), (fleet.queen.address, PORT), delay=0.2, loss=0.05) as relay:
        configure(fleet.queen, "")  # 15 s and 5 s, as for everybody
        fleet.queen.run("systemctl", "restart", QUEEN)
        assert rbeectl(gpu1, "join", "slow", user=None, timeout=60).code == 0
        view = fleet.await_state("gpu1", "online", 30)
        before = count(fleet, "hive-suspect")
        # Questions go and come, each over the wire both ways.
        until = time.monotonic() + 60
        while relay.lost < 3:
            assert rbeectl(fleet.queen, "add-hive", "gpu1", timeout=60).code == 0
            assert time.monotonic() < until, "the relay loses nothing"
        assert fleet.views()["gpu1"]["state"] == "online"
        assert count(fleet, "hive-suspect") == before
        assert view["interval_ms"] == 15_000
        print(f"{relay.lost} segments lost of {relay.up_bytes + relay.down_bytes} bytes")
    configure(fleet.queen, QUICK)
    fleet.queen.run("systemctl", "restart", QUEEN)
    assert rbeectl(gpu1, "join", "queen", user=None).code == 0
    fleet.await_state("gpu1", "online")


def test_the_loss_of_most_is_called_what_it_likely_is(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(queen=SUITES[-1], hives=5)
    suites = {machine.run("cat", "/etc/debian_version").stdout[:2] for machine in fleet.hives.values()}
    assert len(suites) == len(SUITES)
    fleet.queen.cut()
    try:
        lost = fleet.await_told("fleet-lost")
        assert "hives were lost within" in lost["MESSAGE"]
        assert "the network of the queen's own machine" in lost["MESSAGE"]
        for name in fleet.hives:
            fleet.await_state(name, "offline")
        assert len(fleet.told("fleet-lost")) == 1
        # Nobody is called offline without its being said.
        for name, view in fleet.views().items():
            assert view["reason"].startswith(f"no heartbeat for {PATIENCE:g} s; "), name
            assert view["reason"].endswith("likely the network of the queen's own machine"), name
    finally:
        fleet.queen.mend()
    for name in fleet.hives:
        # Who has been alone for a minute dials every 15 s, and gives a try 5.
        fleet.await_state(name, "online", 40)


def test_a_grace_that_is_less_than_the_beats_jitter_is_refused(fleet: Fleet) -> None:
    configure(fleet.queen, "[Queen]\nHeartbeatIntervalSec=10s\nHeartbeatGraceSec=2s\n")
    try:
        fleet.queen.run("systemctl", "restart", QUEEN, check=False)
        told = fleet.await_told("queen-failed")["MESSAGE"]
        assert "[Queen] HeartbeatGraceSec= is 2s, and must be at least 3s" in told
    finally:
        configure(fleet.queen, QUICK)
        # Hives that dial have had her started again and again, until systemd gave up.
        assert rbeectl(fleet.queen, "wake").code == 0
    for name, machine in fleet.hives.items():
        assert machine.run("systemctl", "is-active", HIVE).stdout == "active\n"
        fleet.await_state(name, "online", 20)
