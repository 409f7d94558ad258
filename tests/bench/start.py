"""What rbeectl costs from the keyboard: a hive is added, listed, and all is shut down."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack

from testbed.machine import Machine

from tests.bench.booted import booted
from tests.bench.lines import Goal, Results
from tests.bench.subject import Release, Subject
from tests.bench.timed import EMPTY_PYTHON, RUNS, Command, measure_floor, timed

ADD = "exec rbeectl add-hive localhost"

WORK = (
    Command(
        "add-hive, cold: queen and hive asleep",
        ADD,
        Goal(of_before=0.8),
        before="rbeectl add-hive localhost; systemctl stop queen-rbee",
    ),
    Command("add-hive, warm: both awake", ADD, Goal(of_before=0.75)),
    Command("list-hives", "exec rbeectl list-hives", Goal(of_before=0.7)),
    Command("list-devices", "exec rbeectl list-devices"),
    Command("shutdown", "exec rbeectl shutdown", Goal(of_before=0.45), before="rbeectl add-hive localhost"),
)


class Start(Subject):
    """The time on the clock and the CPU time of each command; the floor is an empty Python."""

    name = "start"
    lines = tuple(line for command in WORK for line in command.lines)

    def measure(self, release: Release, results: Results) -> None:
        """Measure each command in turn."""
        self.measure_in_turns([release], results)

    def measure_in_turns(self, releases: Sequence[Release], results: Results) -> bool:
        """Measure each command in one machine after the other, again and again; the others are idle then."""
        with ExitStack() as booted_machines:
            machines = [(one, booted_machines.enter_context(Machine(one.queen()))) for one in releases]
            for release, machine in machines:
                if release.is_now:
                    measure_floor(machine, results, WORK)
            for command in WORK:
                for _ in range(RUNS):
                    for release, machine in machines:
                        command.measure(machine, results, release.column, runs=1)
        return True


def measure(machine: Machine, suite: str, runs: int) -> None:
    floor = 0.0
    print(f"{suite}, {runs} runs each: median ms (fastest to slowest), ratio to the floor")
    for work in (Command("an empty Python, the floor", EMPTY_PYTHON), *WORK):
        times, _ = timed(machine, runs, work.before, work.command)
        median = statistics.median(times)
        floor = floor or median
        print(
            f"{median:6.0f} ({min(times):.0f} to {max(times):.0f}) x{median / floor:.1f}  {work.name}",
            flush=True,
        )


def main(suite: str, runs: int) -> None:
    with booted(suite) as machine:
        measure(machine, suite, runs)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
