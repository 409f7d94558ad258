"""Measures this checkout's packages and those of the release before in turn, and prints all as one table.

What is compared is in one run: the computer is busy with other things, and more in one hour than in another.
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
from tests.bench.kept import Kept, about_this_computer, commit
from tests.bench.lines import Found
from tests.bench.listing import Listing
from tests.bench.memory import Memory
from tests.bench.remote import Remote
from tests.bench.scale import Rows, Scale
from tests.bench.start import Start
from tests.bench.subject import Peers, Release, Subject
from tests.bench.table import table

SUBJECTS: tuple[Subject, ...] = (
    Beat(), FanOut(), Idle(), Detection(), Start(), Memory(), Remote(), Listing(), Scale(),
    Rows(),
)  # fmt: skip
ROUNDS = 3


class Bench:
    """One run on one suite."""

    def __init__(self, trees: Trees, suite: str, kept: Kept) -> None:
        self._suite = suite
        self._releases = (Release(trees, suite, "before"), Release(trees, suite, "now"))
        self._peers = Peers(trees, suite)
        self._kept = kept
        self._found = Found()

    def run(self, subjects: Sequence[Subject], rounds: int) -> None:
        """Measure, print the table, and keep the samples; those of a run that is ended early, too."""
        loads = [os.getloadavg()[0]]
        try:
            for subject in subjects:
                for number in range(rounds):
                    self._measure(subject, f"{subject.name}, round {number + 1} of {rounds}")
                loads.append(os.getloadavg()[0])
        finally:
            if self._found.samples:
                self._report(subjects, rounds, loads)

    def _measure(self, subject: Subject, words: str) -> None:
        for release in self._releases:
            say(f"⏱ {self._suite}: {words}, {release.column}...")
            subject.measure(release, self._found)
        subject.measure_peer(self._peers, self._found)

    def _report(self, subjects: Sequence[Subject], rounds: int, loads: list[float]) -> None:
        lines = [line for subject in subjects for line in subject.lines]
        last = self._kept.last(line.name for line in lines)
        about = {"before": PREVIOUS, "rounds": rounds, "loads": loads, **about_this_computer()}
        path = self._kept.keep(self._found, about)
        busy = " ".join(f"{load:.1f}" for load in loads)
        print(f"{self._suite}, {commit()} against {PREVIOUS[:12]}, {rounds} rounds; load average {busy}:")
        print(table(lines, self._found, last))
        print(f"Kept as {path}", flush=True)


def say(line: str) -> None:
    """Print what happens now, beside the table."""
    print(line, file=sys.stderr, flush=True)


def arguments() -> argparse.Namespace:
    """Return the command line's."""
    names = [subject.name for subject in SUBJECTS]
    parser = argparse.ArgumentParser(prog="tests/run --bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"pairs of machines ({ROUNDS})")
    heavy = [subject.name for subject in SUBJECTS if subject.is_heavy]
    parser.add_argument(
        "--heavy", action="store_true", help=f"also what takes many minutes: {', '.join(heavy)}"
    )
    parser.add_argument(
        "chosen", nargs="*", metavar="SUITE|NAME",
        help=f"of {', '.join(SUITES)} ({SUITES[0]}), and of {', '.join(names)} (all but heavy ones)",
    )  # fmt: skip
    chosen = parser.parse_intermixed_args()
    if strange := set(chosen.chosen) - {*SUITES, *names}:
        parser.error(f"neither a suite nor a subject: {', '.join(sorted(strange))}")
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
    # Not at once: machines are to be ended, and what was measured is to be kept.
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(143))
    try:
        with Trees(Trees.default_cache(), say=say) as trees:
            for suite in suites:
                kept = Kept(Kept.default_folder(), suite)
                Bench(trees, suite, kept).run(subjects, chosen.rounds)
    except MachineError as error:
        say(str(error))
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
