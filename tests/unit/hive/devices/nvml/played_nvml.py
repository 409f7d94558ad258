"""An NVML that is played: its cards are shapes, and calls of it may fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from rbee.hive.devices.nvml.answers import Implausible
from rbee.hive.devices.nvml.library import Library


class Refused(Exception):
    """As pynvml.NVMLError: `value` is NVML's return code."""

    def __init__(self, value: int) -> None:
        super().__init__(f"Error {value}.")
        self.value = value


@dataclass
class Card:
    address: str
    uuid: str
    name: str = "NVIDIA H100 PCIe"
    used: int = 0
    total: int = 80 * 2**30
    refusals: dict[str, int] = field(default_factory=dict)
    """Return codes, by the call's name without nvmlDevice."""


class PlayedNvml:
    """As the module pynvml; `calls` has the names of those that were made."""

    def __init__(self, *cards: Card, driver: str = "550.54", refusals: dict[str, int] | None = None) -> None:
        self.cards = cards
        self.driver = driver
        self.refusals = refusals or {}
        self.calls: list[str] = []

    def _call(self, name: str, answer: Any = None) -> Any:
        self.calls.append(name)
        if name in self.refusals:
            raise Refused(self.refusals[name])
        return answer

    def _of(self, card: Card, name: str, answer: Any) -> Any:
        self.calls.append(name)
        if name in card.refusals:
            raise Refused(card.refusals[name])
        return answer

    def nvmlInit(self) -> None:  # noqa: N802
        self._call("nvmlInit")

    def nvmlShutdown(self) -> None:  # noqa: N802
        self._call("nvmlShutdown")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return int(self._call("nvmlDeviceGetCount", len(self.cards)))

    def nvmlSystemGetDriverVersion(self) -> str:  # noqa: N802
        return str(self._call("nvmlSystemGetDriverVersion", self.driver))

    def nvmlDeviceGetHandleByIndex(self, number: int) -> Card:  # noqa: N802
        card = self.cards[number]
        self._of(card, "GetHandleByIndex", None)
        return card

    def nvmlDeviceGetPciInfo(self, card: Card) -> Any:  # noqa: N802
        return self._of(card, "GetPciInfo", SimpleNamespace(busId=f"0000{card.address}".encode()))

    def nvmlDeviceGetUUID(self, card: Card) -> str:  # noqa: N802
        return str(self._of(card, "GetUUID", card.uuid))

    def nvmlDeviceGetName(self, card: Card) -> str:  # noqa: N802
        return str(self._of(card, "GetName", card.name))

    def nvmlDeviceGetMemoryInfo(self, card: Card) -> Any:  # noqa: N802
        return self._of(card, "GetMemoryInfo", SimpleNamespace(used=card.used, total=card.total))


def library_of(nvml: PlayedNvml) -> Library:
    """The library as NVML's thread has it, which has loaded this one."""
    library = Library(clock=lambda: 100.0)
    library.nvml = nvml
    library.refusals = (Refused, UnicodeDecodeError, Implausible)
    return library
