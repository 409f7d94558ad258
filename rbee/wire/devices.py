"""A machine's devices, and samples of its usage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from rbee.wire.types import (
    Celsius,
    Count,
    Cpus,
    Limit,
    Load,
    Name,
    Percent,
    Seconds,
    Text,
    Timestamp,
    Watts,
    Word,
)

MemoryKind = Literal["dedicated", "shared"]


@dataclass(frozen=True)
class Cpu:
    """A machine's processors and RAM; a value that the machine does not report is None.

    `model` is that of one socket's processor. `cpus_allowed` and `ram_allowed_bytes` are the limits by the
    cgroup of a guest, or of all that rbee runs; None if unlimited. A hive before 0.5.0 reports neither.
    """

    model: Text | None
    sockets: Count | None
    cores: Count | None
    threads: Count | None
    ram_bytes: Count | None
    cpus_allowed: Cpus | None = None
    ram_allowed_bytes: Count | None = None


@dataclass(frozen=True)
class Gpu:
    """One GPU; a value that its driver does not report is None. `problem` is what is wrong with the card.

    `index` counts the hive's cards from 0 in the order of their PCI addresses;
    `vendor` is 'nvidia', 'amd', 'intel' or the PCI vendor id as four hex digits.
    `memory_kind` is 'dedicated' for a card with its own memory, 'shared' for one that uses the machine's
    RAM. `vram_bytes` is its own memory, or what the firmware has reserved for a card that shares;
    `shared_memory_bytes` is how much of the RAM it may use beside that.
    """

    index: Count
    vendor: Word
    name: Text | None
    uuid: Text | None
    vram_bytes: Count | None
    driver: Text | None
    pci_address: Text | None
    problem: Text | None = None
    memory_kind: MemoryKind | None = None
    shared_memory_bytes: Count | None = None

    @property
    def memory_bytes(self) -> int | None:
        """All the memory that the card can use; None if that is not known."""
        if self.memory_kind != "shared":
            return self.vram_bytes
        if self.shared_memory_bytes is None:
            return None
        return self.shared_memory_bytes + (self.vram_bytes or 0)


@dataclass(frozen=True)
class Finding:
    """Something that kept detection from being complete; `code` is stable, `detail` is for people."""

    code: Word
    detail: Text


@dataclass(frozen=True)
class Devices:
    """The answer of a hive's /v1/devices."""

    cpu: Cpu
    gpus: Annotated[tuple[Gpu, ...], Limit(0, 256)] = ()
    findings: Annotated[tuple[Finding, ...], Limit(0, 64)] = ()
    model_catalog: Annotated[tuple[Name, ...], Limit(0, 10_000)] = ()
    worker_catalog: Annotated[tuple[Name, ...], Limit(0, 10_000)] = ()


@dataclass(frozen=True)
class GpuSample:
    """One GPU at one moment; `index` is that of its Gpu in the devices last detected.

    A value that the card does not report, or not now, is None; `problem` is the reason if that is a fault.
    """

    index: Count
    uuid: Text | None
    pci_address: Text | None
    utilisation_percent: Percent | None
    memory_used_bytes: Count | None
    memory_total_bytes: Count | None
    temperature_celsius: Celsius | None
    power_watts: Watts | None
    problem: Text | None = None


@dataclass(frozen=True)
class Sample:
    """A machine at one moment.

    `load_1`, `load_5` and `load_15` are the kernel's load averages over as many minutes. `cpu_percent` is
    for all threads together, averaged over the last `cpu_span_seconds`; both are None until the hive has
    run long enough. Used memory is the total less what is available (MemAvailable in proc_meminfo(5)).
    """

    hive_id: Name
    at: Timestamp
    load_1: Load | None
    load_5: Load | None
    load_15: Load | None
    cpu_percent: Percent | None
    cpu_span_seconds: Seconds | None
    memory_used_bytes: Count | None
    memory_total_bytes: Count | None
    gpus: Annotated[tuple[GpuSample, ...], Limit(0, 256)] = ()
