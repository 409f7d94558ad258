"""Describes models, and how much of one has been fetched, as text."""

from __future__ import annotations

from rbee.queen.store.models import ModelRow

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def describe_model(row: ModelRow) -> str:
    """Return where a model's file is and what is in it, such as '/m/a.gguf (llama, 7.6 B parameters)'."""
    head = row.head
    parts: list[str | None] = []
    if head is not None:
        parts = [
            head.architecture or head.format,
            None if head.parameters is None else f"{_count(head.parameters)} parameters",
            head.quantisation,
        ]
    parts.append(None if row.bytes is None else size(row.bytes))
    known = ", ".join(part for part in parts if part)
    return f"{row.path or row.source} ({known})" if known else row.path or row.source


def describe_progress(arrived: int, total: int | None) -> str:
    """Return how far a fetch is, such as '62 %, 2.9 GiB of 4.7 GiB'."""
    if not total:
        return f"{size(arrived)} so far"
    return f"{min(100 * arrived // total, 100)} %, {size(arrived)} of {size(total)}"


def size(count: int) -> str:
    """Return a number of bytes as text, such as '793 bytes' or '4.7 GiB'."""
    value, unit = float(count), 0
    while value >= 1024 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    return f"{count} bytes" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def _count(number: int) -> str:
    for unit, name in ((10**9, " B"), (10**6, " M"), (10**3, " K")):
        if number >= unit:
            return f"{number / unit:.1f}{name}"
    return str(number)
