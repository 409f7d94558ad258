"""The lines of a benchmark's table: what is measured, its samples, and the goal."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Column = Literal["before", "now", "floor", "peer"]
"""Whose samples: the previous release's, this checkout's, those of a minimal program for the same work, and
those of another product that does the same work."""

Samples = dict[str, dict[Column, list[float]]]
"""The samples of each column, by the line's name."""


@dataclass(frozen=True, slots=True)
class Goal:
    """The largest median that meets it: in the line's unit, as a part of the previous release's, or both."""

    at_most: float | None = None
    of_before: float | None = None

    def is_met(self, before: float | None, now: float | None) -> bool | None:
        """Return whether these medians meet the goal; None if one that it needs was not measured."""
        if now is None or (self.of_before is not None and not before):
            return None
        is_small = self.at_most is None or now <= self.at_most
        return is_small and (self.of_before is None or not before or now / before <= self.of_before)

    def __str__(self) -> str:
        parts = []
        if self.at_most is not None:
            parts.append(f"≤ {self.at_most:g}")
        if self.of_before is not None:
            parts.append(f"≤ x{self.of_before:g}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the table; smaller is better."""

    name: str
    unit: str
    goal: Goal | None = None


@dataclass(frozen=True, slots=True)
class CpuAndClock:
    """Two lines for the same work: the CPU time that it takes, and the time until it is done."""

    name: str
    unit: str
    cpu_goal: Goal | None = None

    @property
    def cpu(self) -> Line:
        """The line of the CPU time, which has the goal."""
        return Line(f"{self.name}: CPU", self.unit, self.cpu_goal)

    @property
    def clock(self) -> Line:
        """The line of the time on the clock."""
        return Line(f"{self.name}: clock", self.unit)

    @property
    def lines(self) -> tuple[Line, Line]:
        """Both lines, in the order of the table."""
        return self.cpu, self.clock


class Results:
    """The samples of one run."""

    def __init__(self, samples: Samples | None = None) -> None:
        self.samples: Samples = samples if samples is not None else {}

    def add(self, line: str, column: Column, *samples: float) -> None:
        """Add samples of a line."""
        self.samples.setdefault(line, {}).setdefault(column, []).extend(samples)

    def of(self, line: str, column: Column) -> Sequence[float]:
        """Return the samples of a line; [] if it was not measured."""
        columns: Mapping[Column, list[float]] = self.samples.get(line, {})
        return columns.get(column, [])

    def median(self, line: str, column: Column) -> float | None:
        """Return the median; None if it was not measured."""
        samples = self.of(line, column)
        return statistics.median(samples) if samples else None

    def ratio(self, line: str) -> float | None:
        """Return this checkout's median divided by the previous release's; None if one is missing."""
        before, now = self.median(line, "before"), self.median(line, "now")
        return now / before if before and now is not None else None
