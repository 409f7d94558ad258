"""Times whole commands inside a machine, from fork to exit, as a person waits for them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass

from testbed.machine import Machine

from tests.bench.lines import Column, Goal, Line, Results

TIMER = """
import json, resource, subprocess, sys, time

def cpu_ms():
    # Of the command, which is outside the machine's cgroup, and of all that is in it.
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = open("/sys/fs/cgroup/cpu.stat").read().splitlines()
    inside = int(dict(line.split() for line in lines)["usage_usec"])
    return 1000 * (used.ru_utime + used.ru_stime) + inside / 1000

times = []
for _ in range(int(sys.argv[1])):
    if sys.argv[2]:
        subprocess.run(sys.argv[2], shell=True, check=True, capture_output=True)
    used, began = cpu_ms(), time.perf_counter()
    subprocess.run(sys.argv[3], shell=True, check=True, capture_output=True)
    times.append((1000 * (time.perf_counter() - began), cpu_ms() - used))
print(json.dumps(list(zip(*times))))
"""

RUNS = 5
"""Of each command in each machine."""

EMPTY_PYTHON = "exec python3 -I -c pass"
"""The least that a program in Python costs."""


def timed(machine: Machine, runs: int, before: str, command: str) -> tuple[list[float], list[float]]:
    """Return the ms of each run on the clock, and those of CPU that the command and the machine's units took.

    `before` is a command that is run before each, unmeasured.
    """
    timer = ("python3", "-c", TIMER, str(runs), before, command)
    clock, cpu = json.loads(machine.run(*timer, timeout=600).stdout)
    return clock, cpu


@dataclass(frozen=True, slots=True)
class Command:
    """A command that is measured, under the names of its two lines."""

    name: str
    command: str
    goal: Goal | None = None
    before: str = ""

    @property
    def lines(self) -> tuple[Line, Line]:
        """The line of the time on the clock, and the line of the CPU time."""
        return Line(self.name, "ms", self.goal), Line(f"{self.name.partition(':')[0]}: CPU of all", "ms")

    def measure(self, machine: Machine, results: Results, column: Column, runs: int = RUNS) -> None:
        """Run the command so often, and add the samples of both lines."""
        self.add(results, column, timed(machine, runs, self.before, self.command))

    def add(self, results: Results, column: Column, times: tuple[list[float], list[float]]) -> None:
        """Add the samples of both lines."""
        for line, samples in zip(self.lines, times, strict=True):
            results.add(line.name, column, *samples)


def measure_floor(machine: Machine, results: Results, commands: Iterable[Command]) -> None:
    """Add the floor of these commands: an empty Python."""
    times = timed(machine, RUNS, "", EMPTY_PYTHON)
    for command in commands:
        command.add(results, "floor", times)
