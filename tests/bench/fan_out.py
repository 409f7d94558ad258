"""A narrated line, sent to many readers of the queen's events."""

from __future__ import annotations

import json

from testbed.machine import Machine

from tests.bench.beat import prepare
from tests.bench.lines import Found, Goal, Line
from tests.bench.subject import HERE, Release, Subject

READERS = ((100, None), (1000, Goal(at_most=15)))
"""How many, and the goal; the release before takes 128 of them."""

MOST_BEFORE = 128
LINES = 20


def cpu_of(readers: int) -> str:
    """Return the name of the line with the CPU time."""
    return f"a line to {readers} readers: CPU"


def clock_of(readers: int) -> str:
    """Return the name of the line with the time until all have it."""
    return f"a line to {readers} readers: clock"


class FanOut(Subject):
    """The queen's CPU time for a line."""

    name = "fan-out"
    lines = tuple(
        line
        for readers, goal in READERS
        for line in (Line(cpu_of(readers), "ms", goal), Line(clock_of(readers), "ms"))
    )

    def measure(self, release: Release, found: Found) -> None:
        """Read with so many clients, and have a hive say something."""
        with Machine(release.queen()) as machine:
            prepare(machine)
            shown = machine.run("rbeectl", "list-hives", "--json").stdout
            version = json.loads(shown)["hives"][0]["version"]
            program = (HERE / "readers.py").read_text()
            for readers, _ in READERS:
                if readers > MOST_BEFORE and not release.is_now:
                    continue
                arguments = ("/rbee.slice/queen-rbee.service", str(readers), str(LINES), version)
                said = json.loads(machine.run("python3", "-c", program, *arguments, timeout=120).stdout)
                found.add(cpu_of(readers), release.column, *said["cpu"])
                found.add(clock_of(readers), release.column, *said["clock"])
