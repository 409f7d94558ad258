"""What the cards do: asked of an NVML that stays open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from rbee.hive.devices.nvml.answers import (
    take_bytes,
    take_celsius,
    take_processes,
    take_utilisation,
    take_watts,
)
from rbee.hive.devices.nvml.library import (
    LATE,
    NOT_SUPPORTED,
    STALE,
    Library,
    OpenCard,
    code_of,
    explain,
    failure_of,
)
from rbee.hive.devices.nvml.query import Query
from rbee.hive.devices.nvml.results import Failure, NvmlProcess, NvmlReading, Readings

Quantities = tuple[tuple[str, str, str, tuple[int, ...], Callable[[Any], Any]], ...]
"""What is asked of each card: its name, the field of _CardReading, NVML's function and its arguments."""

ACTIVITY: Quantities = (
    ("utilisation", "utilisation", "nvmlDeviceGetUtilizationRates", (), take_utilisation),
    ("memory", "memory", "nvmlDeviceGetMemoryInfo", (), take_bytes),
    ("temperature", "temperature", "nvmlDeviceGetTemperature", (0,), take_celsius),  # 0: of the GPU itself
    ("power", "power", "nvmlDeviceGetPowerUsage", (), take_watts),
)
"""What the cards do."""

HOLDERS: Quantities = (
    ("memory", "memory", "nvmlDeviceGetMemoryInfo", (), take_bytes),
    ("processes", "compute", "nvmlDeviceGetComputeRunningProcesses", (), take_processes),
    ("processes that draw", "graphics", "nvmlDeviceGetGraphicsRunningProcesses", (), take_processes),
)
"""Who holds the cards' memory."""


@dataclass(slots=True)
class _CardReading:
    """What is known so far of what one card does."""

    card: OpenCard
    utilisation: float | None = None
    memory: tuple[int, int] | None = None
    temperature: float | None = None
    power: float | None = None
    compute: tuple[NvmlProcess, ...] | None = None
    graphics: tuple[NvmlProcess, ...] | None = None
    problems: tuple[str, ...] = ()
    is_whole: bool = False

    def so_far(self) -> NvmlReading:
        # A card without memory of its own may say 0 of 0.
        used, total = self.memory if self.memory and self.memory[1] else (None, None)
        late = () if self.is_whole else (LATE,)
        return NvmlReading(
            pci_address=self.card.pci_address,
            uuid=self.card.uuid,
            utilisation_percent=self.utilisation,
            memory_used_bytes=used,
            memory_total_bytes=total,
            temperature_celsius=self.temperature,
            power_watts=self.power,
            problems=(*self.problems, *late),
            processes=None if self.compute is None else _once(*self.compute, *(self.graphics or ())),
        )


def _once(*processes: NvmlProcess) -> tuple[NvmlProcess, ...]:
    """A process that computes and draws is in both of NVML's lists, with the same memory in each."""
    largest: dict[int, NvmlProcess] = {}
    for process in processes:
        before = largest.get(process.pid)
        if before is None or (process.memory_bytes or 0) > (before.memory_bytes or 0):
            largest[process.pid] = process
    return tuple(largest.values())


class ReadingsQuery(Query):
    """Opens NVML if it is not open, again if it shows lost cards, at most every `reopen_after` seconds."""

    def __init__(self, reopen_after: float, quantities: Quantities = ACTIVITY) -> None:
        super().__init__()
        self._quantities = quantities
        self._reopen_after = reopen_after
        self._card_readings: list[_CardReading] = []
        self._is_stale = False

    def readings(self, failure: Failure | None = None) -> Readings:
        """Return what is known so far; `failure` is why the caller waits no longer."""
        return Readings(tuple(reading.so_far() for reading in self._card_readings), failure or self.failure)

    def run(self, library: Library) -> None:
        if library.is_open or self._begin(library):
            self._read_all(library)
        # Not each time: a card that stays lost would have NVML opened at every look.
        if self._is_stale and library.clock() - library.opened_at >= self._reopen_after:
            if library.is_open:
                self._shut_down(library)
            self.failure = None
            if self._begin(library):
                self._read_all(library)

    def _begin(self, library: Library) -> bool:
        """Open NVML, learn which cards it shows, and return whether that worked; if not, set `failure`."""
        is_begun = False
        if self._open(library):
            try:
                self._count(library)
                self._for_each(self._cards, partial(self._identify, library))
                library.cards, is_begun = self._cards, True
            except library.refusals as error:
                self.failure = failure_of(self.asking, error)
                self._shut_down(library)
        self.shown = self.inventory().shown
        return is_begun

    def _read_all(self, library: Library) -> None:
        self._call, self._is_stale = "nvmlDeviceGetCount", False
        self._card_readings = [_CardReading(card) for card in library.cards]
        try:
            self._is_stale = library.nvml.nvmlDeviceGetCount() != library.count
            self._for_each(self._card_readings, partial(self._read, library))
        except library.refusals as error:
            self._is_stale = code_of(error) in STALE
            self.failure = failure_of(self.asking, error)

    def _read(self, library: Library, number: int, reading: _CardReading) -> None:
        if reading.card.handle is None:
            reading.problems = reading.card.problems
        else:
            reading.problems = tuple(self._measure(library, number, reading))
        reading.is_whole = True

    def _measure(self, library: Library, number: int, reading: _CardReading) -> Iterator[str]:
        """Ask for each value; yield a line for each that failed, and end if the card is lost."""
        nvml, handle = library.nvml, reading.card.handle
        for what, field, function, arguments, take in self._quantities:
            self._calls[number] = f"{function} of card {number}"
            # CUDA 14 removes that of the temperature; one with a V at its end takes the same arguments.
            call = getattr(nvml, function, None) or getattr(nvml, f"{function}V")
            try:
                setattr(reading, field, take(call(handle, *arguments)))
            except library.refusals as error:
                if code_of(error) == NOT_SUPPORTED:
                    continue  # this kind of card has no such sensor
                if code_of(error) in STALE:
                    self._is_stale = True
                    yield explain(error)
                    return
                yield f"{what}: {explain(error)}"
