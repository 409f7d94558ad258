"""Samples of a machine's usage."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from rbee.wire.types import Celsius, Count, Limit, Load, Name, Percent, Seconds, Text, Timestamp, Watts


class GpuSample(NamedTuple):
    """One GPU at one moment; `index` is that of its Gpu in the devices last detected.

    A value that the card does not report, or not now, is None; `problem` is the reason if that is a fault.
    """

    index: Count  # type: ignore[assignment]  # tuple.index, which nobody needs
    uuid: Text | None
    pci_address: Text | None
    utilisation_percent: Percent | None
    memory_used_bytes: Count | None
    memory_total_bytes: Count | None
    temperature_celsius: Celsius | None
    power_watts: Watts | None
    problem: Text | None = None


class Sample(NamedTuple):
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
