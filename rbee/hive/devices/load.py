"""How busy the machine is, by /proc: load averages, memory, and the time of its CPUs.

Not by psutil: its root is a global of its module, and its versions differ about what used memory is.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from rbee.hive.devices.files import read_text

LEAST_SPAN = 0.5
"""The fewest seconds over which the usage of the CPUs is averaged."""

MOST_LOAD = 10**9
"""The largest load average that a sample may have."""

READINGS_MAX = 8
"""Readings that are kept; none is younger than half of LEAST_SPAN when the next is kept."""


def load_averages(root: Path) -> tuple[float | None, float | None, float | None]:
    """Return the load averages of 1, 5 and 15 minutes; None if unknown."""
    one, five, fifteen, *_ = [*read_text(root / "proc/loadavg").split(), "", "", ""]
    return _number(one), _number(five), _number(fifteen)


def memory(root: Path) -> tuple[int | None, int | None]:
    """Return bytes used and bytes in all; used is what a program could not get without swapping."""
    fields = dict(re.findall(r"^(\w+):\s+(\d{1,12}) kB$", read_text(root / "proc/meminfo"), re.MULTILINE))
    total = int(fields["MemTotal"]) * 1024 if "MemTotal" in fields else None
    if total is None or "MemAvailable" not in fields:
        return None, total
    return max(0, total - int(fields["MemAvailable"]) * 1024), total


class _Reading(NamedTuple):
    """Seconds of the monotonic clock, and the kernel's ticks of all CPUs since it booted."""

    at: float
    busy: int
    ticks: int


class CpuMeter:
    """The share of the CPUs' time that is not idle, between a reading and an earlier one."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = root / "proc/stat"
        self._clock = clock
        self._kept: deque[_Reading] = deque(maxlen=READINGS_MAX)

    def note(self) -> None:
        """Keep a reading, from which a later look() may start."""
        self._keep(self._reading())

    def look(self) -> tuple[float | None, float | None]:
        """Return the percentage of all CPUs together, and the seconds over which that is an average.

        The earlier reading is the latest that is LEAST_SPAN old, so that this waits for nothing.
        """
        now = self._reading()
        before = next(
            (old for old in reversed(self._kept) if now is not None and now.at - old.at >= LEAST_SPAN), None
        )
        self._keep(now)
        if now is None or before is None or now.ticks <= before.ticks:
            return None, None
        # The kernel's idle and iowait may run backwards by some ticks.
        share = 100 * (now.busy - before.busy) / (now.ticks - before.ticks)
        return round(min(100.0, max(0.0, share)), 1), round(now.at - before.at, 3)

    def _keep(self, reading: _Reading | None) -> None:
        if reading is None or (self._kept and reading.at - self._kept[-1].at < LEAST_SPAN / 2):
            return
        self._kept.append(reading)

    def _reading(self) -> _Reading | None:
        """proc_stat(5): user, nice, system, idle, iowait, irq, softirq, steal; guests count as user."""
        match = re.match(r"cpu +((?:[0-9]{1,19} ){3,7}[0-9]{1,19})\b", read_text(self._path))
        if match is None:
            return None
        ticks = [int(number) for number in match[1].split()]
        return _Reading(self._clock(), sum(ticks) - sum(ticks[3:5]), sum(ticks))


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if 0 <= number <= MOST_LOAD else None
