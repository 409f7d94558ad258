"""What cards do, as their kernel drivers report it in sysfs: amdgpu much; i915, xe and nouveau little."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from rbee.hive.devices import files
from rbee.hive.devices.memory import memory_in_use

LEAST_SPAN, MOST_SPAN = 0.25, 60.0
"""Seconds over which power is averaged, for a card that counts its energy and reports no power."""


class Signs(NamedTuple):
    """The readings of one card; None is unknown."""

    utilisation_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    problem: str | None = None


class Sensors:
    """Reads the sensors under a filesystem root; for one thread at a time."""

    def __init__(self, root: Path, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._bus = root / "sys/bus/pci/devices"
        self._clock = clock
        self._energies: dict[tuple[str, str], tuple[float, int]] = {}

    def is_asleep(self, address: str) -> bool:
        """Has the kernel put the card to sleep? Asking its driver for more would wake it."""
        status = files.read_value(self._bus / address / "power/runtime_status")
        return status in (b"suspended", b"suspending")

    def read(self, address: str) -> Signs:
        """Return the readings of the card at this normal address; may wait for its driver, never raises."""
        function = self._bus / address
        if not function.exists():
            return Signs(problem="the card is gone from the PCI bus")
        if self.is_asleep(address):
            return Signs(problem="the card is asleep, and is not woken by looking")
        used, total = memory_in_use(function)
        monitors = sorted((function / "hwmon").glob("hwmon*"))
        return Signs(
            utilisation_percent=_within(0, 100, _first([function], "gpu_busy_percent")),
            memory_used_bytes=used,
            memory_total_bytes=total,
            # xe has the package's as its second; of several, amdgpu's first is the edge's.
            temperature_celsius=_within(-273, 1000, _first(monitors, "temp1_input", "temp2_input"), 1000),
            power_watts=self._power(address, monitors),
        )

    def _power(self, address: str, monitors: list[Path]) -> float | None:
        power = _within(0, 1_000_000, _first(monitors, "power1_average", "power1_input"), 1_000_000)
        return self._power_by_energy(address, monitors) if power is None else power

    def _power_by_energy(self, address: str, monitors: list[Path]) -> float | None:
        """Return the watts since the last look: i915 and xe count microjoules.

        The first counter of xe is the card's, which not all cards have; the second is the package's.
        """
        for name in ("energy1_input", "energy2_input"):
            energy = _first(monitors, name)
            if energy is not None:
                return self._rise((address, name), energy)
        return None

    def _rise(self, counter: tuple[str, str], energy: int) -> float | None:
        """Return the watts since the last look at this counter; None if that is too short or too long ago."""
        now = self._clock()
        before = self._energies.get(counter)
        if before is None or now - before[0] >= LEAST_SPAN:
            self._energies[counter] = (now, energy)
        if before is None or not LEAST_SPAN <= now - before[0] <= MOST_SPAN:
            return None
        return _within(0, 1_000_000, energy - before[1], 1_000_000 * (now - before[0]))


def _first(folders: list[Path], *names: str) -> int | None:
    """The first of these files that holds a number."""
    return next((number for number in _numbers(folders, names) if number is not None), None)


def _numbers(folders: list[Path], names: tuple[str, ...]) -> Iterator[int | None]:
    for name in names:
        for folder in folders:
            yield files.read_number(folder / name)


def _within(least: float, most: float, number: int | None, unit: float = 1) -> float | None:
    """The number in its unit; None where it cannot be true."""
    if number is None or not least <= number / unit <= most:
        return None
    return round(number / unit, 3)
