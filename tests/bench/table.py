"""Prints the lines of a benchmark as a table: medians, from the least to the most in parentheses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.bench.lines import Column, Found, Line

MISSING = "–"
HEADINGS = ("", "unit", "before", "now", "ratio", "last ratio", "floor", "peer", "goal", "met")


def table(lines: Iterable[Line], found: Found, last: dict[str, Found]) -> str:
    """Return the table; `last` has for a line's name the run in which it was measured last."""
    rows = [list(HEADINGS), *(_row(line, found, last.get(line.name)) for line in lines)]
    widths = [max(len(row[number]) for row in rows) for number in range(len(HEADINGS))]
    return "\n".join(_aligned(row, widths) for row in rows)


def _row(line: Line, found: Found, last: Found | None) -> list[str]:
    before, now = found.median(line.name, "before"), found.median(line.name, "now")
    is_met = line.goal.is_met(before, now) if line.goal else None
    return [
        line.name,
        line.unit,
        _span(found, line, "before"),
        _span(found, line, "now"),
        _ratio(found.ratio(line.name)),
        _ratio(last.ratio(line.name) if last else None),
        _span(found, line, "floor"),
        _span(found, line, "peer"),
        str(line.goal or MISSING),
        MISSING if is_met is None else "yes" if is_met else "no",
    ]


def _span(found: Found, line: Line, column: Column) -> str:
    samples, median = found.of(line.name, column), found.median(line.name, column)
    if median is None:
        return MISSING
    if len(samples) == 1:
        return number(median)
    return f"{number(median)} ({number(min(samples))}–{number(max(samples))})"


def _ratio(ratio: float | None) -> str:
    return MISSING if ratio is None else f"x{ratio:.2f}"


def number(value: float) -> str:
    """Return it with what is significant of it."""
    if value >= 99.5:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    words = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
    return "  ".join(words).rstrip()
