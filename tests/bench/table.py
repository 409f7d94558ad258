"""The lines of a benchmark as a table: medians, with the least and the most in parentheses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tests.bench.lines import Column, Line, Results

MISSING = "–"
HEADINGS = ("", "unit", "before", "now", "ratio", "last ratio", "floor", "peer", "goal", "met")


def table(lines: Iterable[Line], results: Results, last: dict[str, Results]) -> str:
    """Return the table; `last` has, by the name of each line, the latest run that measured it."""
    rows = [list(HEADINGS), *(_row(line, results, last.get(line.name)) for line in lines)]
    widths = [max(len(row[number]) for row in rows) for number in range(len(HEADINGS))]
    return "\n".join(_aligned(row, widths) for row in rows)


def _row(line: Line, results: Results, last: Results | None) -> list[str]:
    before, now = results.median(line.name, "before"), results.median(line.name, "now")
    is_met = line.goal.is_met(before, now) if line.goal else None
    return [
        line.name,
        line.unit,
        _span(results, line, "before"),
        _span(results, line, "now"),
        _ratio(results.ratio(line.name)),
        _ratio(last.ratio(line.name) if last else None),
        _span(results, line, "floor"),
        _span(results, line, "peer"),
        str(line.goal or MISSING),
        MISSING if is_met is None else "yes" if is_met else "no",
    ]


def _span(results: Results, line: Line, column: Column) -> str:
    samples, median = results.of(line.name, column), results.median(line.name, column)
    if median is None:
        return MISSING
    if len(samples) == 1:
        return number(median)
    return f"{number(median)} ({number(min(samples))}–{number(max(samples))})"


def _ratio(ratio: float | None) -> str:
    return MISSING if ratio is None else f"x{ratio:.2f}"


def number(value: float) -> str:
    """Return the value in three digits or more, with two decimals at most."""
    if value >= 99.5:
        return f"{value:.0f}"
    return f"{value:.1f}" if value >= 9.95 else f"{value:.2f}"


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = zip(row, widths, strict=True)
    cells = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
    return "  ".join(cells).rstrip()
