"""The library as NVML's thread has it, its cards, and what its errors mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from rbee.hive.devices.nvml.answers import Implausible
from rbee.hive.devices.nvml.results import Cause, Failure, NvmlCard
from rbee.hive.devices.text import printable
from rbee.wire.devices import MemoryKind

# By NVML's return codes, nvml.h. A driver library that lacks a function which this
# pynvml calls is of another generation: that, too, is a mismatch.
_CAUSES: dict[int, Cause] = {
    4: "no-permission",
    9: "driver-not-loaded",
    12: "library-missing",
    13: "driver-mismatch",
    17: "no-permission",  # "blocked by the operating system", by a cgroup say
    18: "driver-mismatch",
    999: "unknown",
}

# What NVML says when the cards or the driver are no longer those that it was opened with:
# uninitialised, driver not loaded, GPU is lost, reset required, driver and library do not match.
STALE = frozenset({1, 9, 15, 16, 18})
NOT_SUPPORTED = 3

LIBRARY = "libnvidia-ml.so.1"

LATE = "NVML did not answer in time"


class Library:
    """NVML as its thread has it."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.nvml: Any = None
        self.refusals: tuple[type[Exception], ...] = ()
        self.is_open = False
        self.opened_at = 0.0
        self.count = 0
        self.cards: list[OpenCard] = []

    def load(self) -> None:
        """Import pynvml; raises ImportError, and OSError without NVIDIA's library.

        The library is loaded first: most machines without a GPU do not have it, and finding that out takes a
        fifth to a third of the time that importing the module does.
        """
        if self.nvml is not None:
            return
        import ctypes

        ctypes.CDLL(LIBRARY)
        import pynvml

        # Some versions answer FUNCTION_NOT_FOUND with an exception outside NVMLError, and
        # let UnicodeDecodeError escape if a driver's text is not UTF-8.
        mismatch = getattr(pynvml, "NVMLLibraryMismatchError", pynvml.NVMLError)
        self.refusals = (pynvml.NVMLError, mismatch, UnicodeDecodeError, Implausible)
        self.nvml = pynvml


@dataclass(slots=True)
class OpenCard:
    """What is known so far of one card that NVML has open."""

    handle: Any = None
    pci_address: str | None = None
    uuid: str | None = None
    name: str | None = None
    vram_bytes: int | None = None
    memory_kind: MemoryKind | None = None
    problems: tuple[str, ...] = ()
    is_whole: bool = False

    def so_far(self) -> NvmlCard:
        """Return what is known; where calls are left to be made, that is a problem."""
        late = () if self.is_whole else (LATE,)
        problems = (*self.problems, *late)
        return NvmlCard(self.pci_address, self.uuid, self.name, self.vram_bytes, problems, self.memory_kind)

    def complain(self, problem: str) -> None:
        """Note a problem of this card."""
        self.problems = (*self.problems, problem)


def failure_of(call: str, error: Exception) -> Failure:
    """Return what it means for NVML as a whole that `call` failed."""
    return Failure(_CAUSES.get(code_of(error), "failed"), f"{call}: {explain(error)}")


def code_of(error: Exception) -> int:
    """Return NVML's return code, -1 for an error of our own."""
    if isinstance(error, (UnicodeDecodeError, Implausible)):
        return -1
    code = getattr(error, "value", 13)  # NVMLLibraryMismatchError has none and means 13
    return code if isinstance(code, int) else -1


def explain(error: Exception) -> str:
    """Return an error's text and code. To be called in NVML's thread, because it may call NVML."""
    if isinstance(error, UnicodeDecodeError):
        return "the driver's answer is not text"
    words = (printable(str(error)) or type(error).__name__).rstrip(".")
    if isinstance(error.__context__, OSError):  # what the dynamic loader said
        words = f"{words}: {printable(str(error.__context__))}"
    code = getattr(error, "value", None)
    return words if code is None else f"{words} (NVML error {code})"
