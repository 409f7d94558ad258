"""What queen and hive cost while they have no requests."""

from __future__ import annotations

import time
from collections.abc import Sequence

from testbed.machine import Machine

from tests.bench.lines import Column, Goal, Line, Results
from tests.bench.subject import Peers, Release, Subject
from tests.bench.usage import HIVE, QUEEN, cpu_us, pid_of

SETTLE = 5.0
"""Seconds after the first heartbeat until the start is over."""

SPAN = 60.0
"""Seconds, with four heartbeats."""

UNITS = (QUEEN, HIVE)
CPU = Line("idle, queen and hive: CPU", "% of a core", Goal(at_most=0.05))
WAKES = Line("idle, queen and hive: wake-ups", "a second", Goal(at_most=0.5))

SWITCHES = "cat /proc/$0/task/*/status | awk '/^voluntary_ctxt_switches:/ {n += $2} END {print n}'"


class Idle(Subject):
    """CPU time by the cgroups, wake-ups by the threads' voluntary context switches; the peer is etcd."""

    name = "idle"
    lines = (CPU, WAKES)

    def measure(self, release: Release, results: Results) -> None:
        """Add a hive, and leave both alone."""
        with Machine(release.queen()) as machine:
            machine.run("rbeectl", "add-hive", "localhost", user="ada")
            self._watch(machine, UNITS, results, release.column)

    def measure_peer(self, peers: Peers, results: Results) -> None:
        """Leave etcd alone."""
        with Machine(peers.tree()) as machine:
            self._watch(machine, ("etcd.service",), results, "peer")

    def _watch(self, machine: Machine, units: Sequence[str], results: Results, column: Column) -> None:
        time.sleep(SETTLE)
        began, before = time.monotonic(), _used(machine, units)
        time.sleep(SPAN)
        took, after = time.monotonic() - began, _used(machine, units)
        results.add(CPU.name, column, (after[0] - before[0]) / took / 1e4)
        results.add(WAKES.name, column, (after[1] - before[1]) / took)


def _used(machine: Machine, units: Sequence[str]) -> tuple[int, int]:
    """Return the CPU time of units in µs, and the voluntary context switches of their threads."""
    switches = (machine.run("sh", "-c", SWITCHES, pid_of(machine, unit)).stdout for unit in units)
    return sum(cpu_us(machine, unit) for unit in units), sum(map(int, switches))
