"""Measures this checkout's packages and the previous release's in turn, and prints one table.

Both are measured in the same run, because what else the computer does changes from hour to hour.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from testbed.host import MachineError, why_not
from testbed.trees import PREVIOUS, SUITES, Trees

from tests.bench.beat import Beat
from tests.bench.detection import Detection
from tests.bench.fan_out import FanOut
from tests.bench.idle import Idle
from tests.bench.lines import Results
from tests.bench.listing import Listing
from tests.bench.memory import Memory
from tests.bench.past_runs import PastRuns, about_this_computer, commit
from tests.bench.remote import Remote
from tests.bench.scale import Rows, Scale
from tests.bench.serve import Serve
from tests.bench.start import Start
from tests.bench.subject import Peers, Release, Subject
from tests.bench.table import table

SUBJECTS: tuple[Subject, ...] = (
    Beat(), FanOut(), Idle(), Detection(), Start(), Memory(), Remote(), Listing(), Scale(),
    Rows(), Serve(),
)  # fmt: skip
ROUNDS = 3


class Bench:
    """One run on one suite."""

    def __init__(self, trees: Trees, suite: str, past_runs: PastRuns) -> None:
        self._suite = suite
        self._releases = (Release(trees, suite, "before"), Release(trees, suite, "now"))
        self._peers = Peers(trees, suite)
        self._past_runs = past_runs
        self._results = Results()

    def run(self, subjects: Sequence[Subject], rounds: int) -> None:
        """Measure, print the table, and keep the samples, also of a run that is interrupted."""
        loads = [os.getloadavg()[0]]
        try:
            for subject in subjects:
                for number in range(rounds):
                    self._measure(subject, f"{subject.name}, round {number + 1} of {rounds}")
                loads.append(os.getloadavg()[0])
        finally:
            if self._results.samples:
                self._report(subjects, rounds, loads)

    def _measure(self, subject: Subject, progress: str) -> None:
        say(f"⏱ {self._suite}: {progress}...")
        if not subject.measure_in_turns(self._releases, self._results):
            for release in self._releases:
                say(f"⏱ {self._suite}: {progress}, {release.column}...")
                subject.measure(release, self._results)
        subject.measure_peer(self._peers, self._results)

    def _report(self, subjects: Sequence[Subject], rounds: int, loads: list[float]) -> None:
        lines = [line for subject in subjects for line in subject.lines]
        last = self._past_runs.last(line.name for line in lines)
        about = {"before": PREVIOUS, "rounds": rounds, "loads": loads, **about_this_computer()}
        path = self._past_runs.keep(self._results, about)
        busy = " ".join(f"{load:.1f}" for load in loads)
        print(f"{self._suite}, {commit()} against {PREVIOUS[:12]}, {rounds} rounds; load average {busy}:")
        print(table(lines, self._results, last))
        print(f"The samples are in {path}", flush=True)


def say(line: str) -> None:
    """Print progress to stderr; stdout is for the table."""
    print(line, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    """Return the arguments of the command line."""
    names = [subject.name for subject in SUBJECTS]
    parser = argparse.ArgumentParser(prog="tests/run --bench", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help=f"how often to measure each subject (default: {ROUNDS})"
    )
    heavy = [subject.name for subject in SUBJECTS if subject.is_heavy]
    parser.add_argument(
        "--heavy", action="store_true", help=f"include what takes many minutes: {', '.join(heavy)}"
    )
    parser.add_argument(
        "chosen", nargs="*", metavar="SUITE|SUBJECT",
        help=f"suites: {', '.join(SUITES)} (default: {SUITES[0]}); "
        f"subjects: {', '.join(names)} (default: all that are not heavy)",
    )  # fmt: skip
    chosen = parser.parse_intermixed_args()
    if unknown := set(chosen.chosen) - {*SUITES, *names}:
        parser.error(f"neither a suite nor a subject: {', '.join(sorted(unknown))}")
    return chosen


def main() -> int:
    """Run the benchmarks that the command line names."""
    chosen = arguments()
    suites = [suite for suite in SUITES if suite in chosen.chosen] or SUITES[:1]
    subjects = [subject for subject in SUBJECTS if subject.name in chosen.chosen] or [
        subject for subject in SUBJECTS if chosen.heavy or not subject.is_heavy
    ]
    if reason := why_not():
        say(reason)
        return 1
    # By an exception, so that machines are stopped and samples are kept.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    try:
        with Trees(Trees.default_cache(), say=say) as trees:
            for suite in suites:
                past_runs = PastRuns(PastRuns.default_folder(), suite)
                Bench(trees, suite, past_runs).run(subjects, chosen.rounds)
    except MachineError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
