"""Clocks that jump: life and death go by the monotonic clock; certificates go by the wall clock."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from testbed.machine import Machine
from testbed.trees import Trees

from tests.system.commands import HIVE, QUEEN, add_hive, await_state, configure, override, rbeectl
from tests.system.fleet.fleet import SUITES, Fleet, fleet_of, refused

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


@pytest.mark.parametrize("suite", SUITES)
def test_keys_that_were_made_while_the_clock_was_ahead_are_named_and_mended(
    trees: Trees, debs: list[Path], suite: str
) -> None:
    with fleet_of(trees, debs, queen=suite) as fleet:
        queen, gpu1 = fleet.queen, fleet.boot("gpu1", suite)
        library = queen.run("sh", "-c", "ls /usr/lib/*/faketime/libfaketime.so.1").stdout.strip()
        set_clocks(queen, 0)
        override(queen, QUEEN, FAKED % library)
        has_future_keys(fleet)

        told = "the certificate of the queen's CA is not valid before "
        shown = rbeectl(queen, "tcp", "status")
        assert f"Problem: {told}" in shown.out, shown
        assert told in rbeectl(queen, "tcp", "status", "--json").json["problem"]
        refused(rbeectl(gpu1, "join", "queen", "--token", fleet.token(), user=None), 1, "clock")
        looked = rbeectl(queen, "doctor", user=None)
        assert looked.code == 1, looked
        assert f"problem  keys: {told}" in looked.out
        assert "No hive has joined" in looked.out
        mended = rbeectl(queen, "doctor", "--fix", user=None)
        assert mended.code == 0, mended
        assert rbeectl(queen, "tcp", "status", "--json").json["problem"] is None
        (token,) = rbeectl(queen, "token", "list", "--json").json["tokens"]
        assert token["is_revoked"], token
        assert "1 token is revoked: the queen has another CA" in rbeectl(queen, "audit").out
        joined = rbeectl(gpu1, "join", "queen", "--token", fleet.token(), user=None)
        assert joined.code == 0, joined
        fleet.await_state("gpu1", "online")

        # With a hive that has joined the doctor says what it costs, and leaves it to a person.
        has_future_keys(fleet)
        before = queen.run("cat", "/var/lib/queen-rbee/tls/ca.crt").stdout
        looked = rbeectl(queen, "doctor", "--fix", user=None)
        assert looked.code == 1, looked
        assert "1 hive has joined, and with new keys each has to join again" in looked.out
        assert queen.run("cat", "/var/lib/queen-rbee/tls/ca.crt").stdout == before


def has_future_keys(fleet: Fleet) -> None:
    """The queen's keys were made while her clock was a day ahead; it is right again."""
    fleet.queen.run("rm", "-r", "/var/lib/queen-rbee/tls")
    for jump in (DAY, 0):
        set_clocks(fleet.queen, jump)
        fleet.queen.run("systemctl", "restart", QUEEN)
