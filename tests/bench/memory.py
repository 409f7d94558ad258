"""The memory of queen and hive at rest, in a machine without a GPU."""

from __future__ import annotations

import time

from testbed.machine import Machine

from tests.bench.lines import Goal, Line, Results
from tests.bench.subject import Peers, Release, Subject
from tests.bench.usage import HIVE, QUEEN, pss_mib

REST = 5.0
"""Seconds after the first heartbeat, by which the memory that only the start needs is free again."""

OWN_PSS = """
for line in open("/proc/self/smaps_rollup"):
    if line.startswith("Pss:"):
        print(line.split()[1])
"""

UNITS = (("memory (PSS) of the queen", QUEEN, 25), ("memory (PSS) of the hive", HIVE, 24))


class Memory(Subject):
    """PSS; the floor is an empty Python, the peer etcd, which does the queen's work."""

    name = "memory"
    lines = tuple(Line(name, "MiB", Goal(at_most=most)) for name, _, most in UNITS)

    def measure(self, release: Release, results: Results) -> None:
        """Read it some seconds after a hive was added."""
        with Machine(release.queen()) as machine:
            machine.run("rbeectl", "add-hive", "localhost", user="ada")
            time.sleep(REST)
            for name, unit, _ in UNITS:
                results.add(name, release.column, pss_mib(machine, unit))
            if release.is_now:
                # With nothing else running: PSS counts only a part of what programs share.
                machine.run("rbeectl", "shutdown", user="ada")
                empty = int(machine.run("python3", "-I", "-c", OWN_PSS).stdout) / 1024
                for name, *_ in UNITS:
                    results.add(name, "floor", empty)

    def measure_peer(self, peers: Peers, results: Results) -> None:
        """Read etcd's."""
        with Machine(peers.tree()) as machine:
            time.sleep(REST)
            results.add(UNITS[0][0], "peer", pss_mib(machine, "etcd.service"))
