"""What NVML is asked for, and what it has answered."""

from __future__ import annotations

from typing import Literal, NamedTuple

from rbee.wire.devices import MemoryKind

Cause = Literal[
    "module-missing",
    "library-missing",
    "driver-not-loaded",
    "no-permission",
    "driver-mismatch",
    "unknown",
    "timeout",
    "interrupted",
    "failed",
]

MOST_CARDS = 256  # as many as Devices holds; a broken driver may say any number


class Failure(NamedTuple):
    """Why NVML as a whole answered nothing, or not everything."""

    cause: Cause
    detail: str


class NvmlCard(NamedTuple):
    """One card as far as NVML describes it; `problems` has a line for each call that failed.

    What this kind of card does not support is None and no problem.
    """

    pci_address: str | None = None
    uuid: str | None = None
    name: str | None = None
    vram_bytes: int | None = None
    problems: tuple[str, ...] = ()
    memory_kind: MemoryKind | None = None

    @property
    def is_nameless(self) -> bool:
        """NVML counted it, and nothing distinguishes it from another card."""
        return self.pci_address is None and self.uuid is None and self.name is None


class Shown(NamedTuple):
    """Which driver and which cards NVML shows, to be compared; each card's PCI address and uuid."""

    driver_version: str | None
    cards: tuple[tuple[str | None, str | None], ...]
    cause: Cause | None


class Inventory(NamedTuple):
    """Which cards there are, in NVML's order; the driver's version is None if NVML did not answer it."""

    cards: tuple[NvmlCard, ...]
    driver_version: str | None
    failure: Failure | None

    @property
    def shown(self) -> Shown:
        """What of it is compared with another inventory."""
        cards = tuple((card.pci_address, card.uuid) for card in self.cards)
        return Shown(self.driver_version, cards, self.failure.cause if self.failure else None)


class NvmlProcess(NamedTuple):
    """A process on a card, and the bytes of the card's memory that it holds; None if NVML does not say."""

    pid: int
    memory_bytes: int | None


class NvmlReading(NamedTuple):
    """What one card does; None is what its kind does not support. `problems` is what failed.

    `processes` are read only if the memory's holders are asked for; each is listed once.
    """

    pci_address: str | None = None
    uuid: str | None = None
    utilisation_percent: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    problems: tuple[str, ...] = ()
    processes: tuple[NvmlProcess, ...] | None = None


class Readings(NamedTuple):
    """What the cards do, in NVML's order, as far as it answered."""

    cards: tuple[NvmlReading, ...]
    failure: Failure | None
