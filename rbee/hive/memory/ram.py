"""RAM: what is free of it within the limits of cgroups, and which units hold it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from rbee.hive.devices.files import read_byte_count
from rbee.hive.devices.limits import memory_folders, memory_limit
from rbee.hive.devices.load import memory
from rbee.hive.memory.cgroups import Cgroups, Unit, usage
from rbee.hive.memory.ledger import RAM, Reading
from rbee.wire.workers import Holder

UNITS_LISTED = 10
"""The most units that are listed beside the workers: those that hold the most."""

LEAST_PART = 100
"""A unit is listed if it holds at least a hundredth of the RAM."""


def read_ram(root: Path, cgroups: Cgroups, workers: Mapping[str, Path]) -> Reading:
    """Return the reading of RAM; `workers` has the cgroup folders of the workers, by id.

    MemAvailable counts mapped files as available. Those of the workers do not count as free here, as engines
    compute with them.
    """
    used, whole = memory(root)
    usages = {worker_id: usage(folder) for worker_id, folder in workers.items()}
    limits = [(folder, limit) for folder in memory_folders(root) if (limit := memory_limit(folder))]
    total = min([whole or 0, *(limit for _, limit in limits)]) if whole else None
    free = None
    if whole is not None and used is not None and total is not None:
        rooms = [room for folder, limit in limits if (room := _room(folder, limit)) is not None]
        mapped = sum(found.mapped for found in usages.values() if found)
        free = max(0, min([whole - used - mapped, total, *rooms]))
    return Reading(
        RAM,
        "RAM",
        total,
        free,
        {worker_id: found.held if found else None for worker_id, found in usages.items()},
        tuple(_largest(cgroups, (total or 0) // LEAST_PART)),
        "kernel and everything else",
        problem=None if free is not None else "/proc/meminfo does not report MemTotal and MemAvailable",
    )


def _room(folder: Path, limit: int) -> int | None:
    """Return the bytes that a limited cgroup may still take; None if its use is not known."""
    found = usage(folder)
    if found is not None:
        return max(0, limit - found.held)
    used = read_byte_count(folder / "memory.usage_in_bytes")  # cgroups version 1; includes the page cache
    return None if used is None else max(0, limit - used)


def _largest(cgroups: Cgroups, least: int) -> Iterator[Holder]:
    """Yield the units that hold the most, except workers. memory.stat is read only for these: it is slow."""
    found: list[tuple[int, Unit]] = []
    for unit in cgroups.units():
        current = read_byte_count(unit.folder / "memory.current")
        if current is not None and current >= least and unit.worker_id is None:
            found.append((current, unit))
    for _, unit in sorted(found, key=lambda entry: -entry[0])[:UNITS_LISTED]:
        held = usage(unit.folder)
        if held is not None and held.held >= max(1, least):
            yield Holder("process", held.held, unit.name, unit.user)
