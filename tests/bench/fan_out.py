"""What it takes to send a narrated line to many readers of the queen's events."""

from __future__ import annotations

import json

from testbed.machine import Machine

from tests.bench.beat import prepare
from tests.bench.lines import CpuAndClock, Goal, Results
from tests.bench.subject import HERE, Release, Subject

READERS = (
    (100, CpuAndClock("a line to 100 readers", "ms")),
    (1000, CpuAndClock("a line to 1000 readers", "ms", Goal(at_most=15))),
)
"""How many readers, and the lines of the table for them."""

MOST_BEFORE = 128
"""The most readers that the previous release accepts."""

LINES = 20
"""Narrated lines in each machine, for each number of readers."""


class FanOut(Subject):
    """The queen's CPU time for a line, and the time until all readers have it."""

    name = "fan-out"
    lines = tuple(line for _, work in READERS for line in work.lines)

    def measure(self, release: Release, results: Results) -> None:
        """Read with each number of clients, and have a hive send lines."""
        with Machine(release.queen()) as machine:
            version = prepare(machine)
            program = (HERE / "readers.py").read_text()
            for readers, work in READERS:
                if readers > MOST_BEFORE and not release.is_now:
                    continue
                arguments = ("/rbee.slice/queen-rbee.service", str(readers), str(LINES), version)
                read = json.loads(machine.run("python3", "-c", program, *arguments, timeout=120).stdout)
                results.add(work.cpu.name, release.column, *read["cpu"])
                results.add(work.clock.name, release.column, *read["clock"])
