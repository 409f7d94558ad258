"""The lines of a benchmark's table: what is measured, its samples, and the goal."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Column = Literal["before", "now", "floor", "peer"]
"""Whose samples: those of the release before, of this checkout, of the least that any program needs for the
same work, and of another program that does the same work."""

Samples = dict[str, dict[Column, list[float]]]
"""By the line's name."""


@dataclass(frozen=True, slots=True)
class Goal:
    """Medians that are to be reached: so much in the line's unit, or this part of the release before."""

    at_most: float | None = None
    of_before: float | None = None

    def is_met(self, before: float | None, now: float | None) -> bool | None:
        """Whether it is met; None if that was not measured."""
        if now is None or (self.of_before is not None and not before):
            return None
        is_few = self.at_most is None or now <= self.at_most
        return is_few and (self.of_before is None or not before or now / before <= self.of_before)

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


class Found:
    """The samples so far."""

    def __init__(self, samples: Samples | None = None) -> None:
        self.samples: Samples = samples if samples is not None else {}

    def add(self, line: str, column: Column, *samples: float) -> None:
        """Add samples of a line."""
        self.samples.setdefault(line, {}).setdefault(column, []).extend(samples)

    def of(self, line: str, column: Column) -> Sequence[float]:
        """Return the samples of a line; none if it was not measured."""
        columns: Mapping[Column, list[float]] = self.samples.get(line, {})
        return columns.get(column, [])

    def median(self, line: str, column: Column) -> float | None:
        """Return the median; None if it was not measured."""
        samples = self.of(line, column)
        return statistics.median(samples) if samples else None

    def ratio(self, line: str) -> float | None:
        """Return this checkout's median as a part of that of the release before; None if one is missing."""
        before, now = self.median(line, "before"), self.median(line, "now")
        return now / before if before and now is not None else None
