"""Clocks that jump: life and death go by the monotonic clock, and nobody notices."""

from __future__ import annotations

import json
import time

from machines import Machine

from tests.system.house import HIVE, QUEEN, add_hive, await_state, configure, override, rbeectl

DAY = 86400

FAKED = """[Service]
Environment=LD_PRELOAD=%s FAKETIME_TIMESTAMP_FILE=/run/clock FAKETIME_NO_CACHE=1 DONT_FAKE_MONOTONIC=1
"""


def set_clocks(machine: Machine, jump: int) -> None:
    """Let queen and hive see the wall clock so many seconds off."""
    machine.run("sh", "-c", f"echo '{jump:+d}' > /run/clock.new && mv /run/clock.new /run/clock")


def last_beat(machine: Machine) -> float:
    """When the queen had the hive's last beat, in seconds off this computer's clock."""
    hive = json.loads(rbeectl(machine, "list-hives", "--json").out)["hives"][0]
    assert hive["state"] == "online", hive
    return float(hive["last_beat_ms"]) / 1000 - time.time()


def test_a_clock_that_jumps_a_day_forward_and_back_takes_nobody_offline(machine: Machine) -> None:
    configure(machine, "[Queen]\nHeartbeatIntervalSec=200ms\nHeartbeatGraceSec=1s\n")
    library = machine.run("sh", "-c", "ls /usr/lib/*/faketime/libfaketime.so.1").stdout.strip()
    set_clocks(machine, 0)
    for name in (QUEEN, HIVE):
        override(machine, name, FAKED % library)
    add_hive(machine)
    before = await_state(machine, "online")
    for jump in (DAY, -DAY):
        set_clocks(machine, jump)
        # The queen's word on a beat that came after the jump shows it.
        deadline = time.monotonic() + 10
        while abs(last_beat(machine) - jump) > DAY / 2:
            assert time.monotonic() < deadline, "the clock did not jump"
        # More than all the misses after which a silent hive is offline.
        machine.run("systemd-run", "--wait", "--quiet", "sleep", "2")
        after = await_state(machine, "online")
        assert after["since_ms"] == before["since_ms"]
    entries = machine.journal("RBEE_EVENT=hive-suspect") + machine.journal("RBEE_EVENT=hive-offline")
    assert entries == []
    told = rbeectl(machine, "list-hives")
    assert (told.code, told.err) == (0, "")
    add_hive(machine)
