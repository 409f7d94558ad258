"""What a benchmark measures, and of what: a subject has lines, and samples them for each release."""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from testbed.trees import GIT, PREVIOUS, Trees

from tests.bench.lines import Line, Results

HERE = Path(__file__).resolve().parent

PEERS = ("etcd-server",)
"""Debian packages whose programs are measured beside rbee's."""


class Release:
    """The packages of one commit, on one suite: this checkout's, or those of the release before."""

    def __init__(self, trees: Trees, suite: str, column: Literal["before", "now"]) -> None:
        self.column: Literal["before", "now"] = column
        self.trees = trees
        self._suite = suite

    @property
    def is_now(self) -> bool:
        """Whether it is this checkout's. Floors are measured with it alone, as once a round is enough."""
        return self.column == "now"

    def queen(self) -> Path:
        """Return the tree of a machine with all packages, and with the user ada in the group rbee."""
        if self.is_now:
            return self.trees.installed(self._suite, self._debs())
        return self.trees.previous(self._suite)

    def hive(self) -> Path:
        """Return the tree of a machine with a hive and rbeectl."""
        return self.trees.hive(self._suite, self._debs())

    def many_hives(self) -> str:
        """Return the program that plays many hives with this release's own modules."""
        if self.is_now:
            return (HERE / "many_hives.py").read_text()
        then = f"{PREVIOUS}:tests/bench/fleet_crowd.py"
        return subprocess.run([*GIT, "show", then], stdout=subprocess.PIPE, text=True, check=True).stdout

    def _debs(self) -> Collection[Path]:
        return built() if self.is_now else self.trees.previous_debs()


def built() -> list[Path]:
    """Return the packages that the starter has built from this checkout."""
    return sorted(Path("dist").glob("*.deb"))


class Peers:
    """Machines with PEERS, and without rbee."""

    def __init__(self, trees: Trees, suite: str) -> None:
        self._trees = trees
        self._suite = suite

    def tree(self) -> Path:
        """Return the tree of such a machine."""
        return self._trees.with_debian(self._suite, PEERS)


class Subject(ABC):
    """Something that is measured, in machines of its own."""

    name: ClassVar[str]
    """Its name on the command line."""

    is_heavy: ClassVar[bool] = False
    """Whether it takes many minutes, and is measured only if it is asked for."""

    lines: ClassVar[tuple[Line, ...]]

    @abstractmethod
    def measure(self, release: Release, results: Results) -> None:
        """Boot machines of this release and add samples; with this checkout's, those of the floor, too."""

    def measure_in_turns(self, releases: Sequence[Release], results: Results) -> bool:
        """Add samples of all releases, by turns between two of them; False if this subject has no such way.

        A computer that other work makes faster and slower by turns of a minute does that to both alike then.
        """
        return False

    def measure_peer(self, peers: Peers, results: Results) -> None:  # noqa: B027 - most have none
        """Add samples of another product that does the same work."""
