"""The memory of each card of the last detection, and the processes that hold it, if its driver lists them."""

from __future__ import annotations

from typing import NamedTuple

from rbee.hive.devices.cards import why_unread
from rbee.hive.devices.nvml.nvml import Nvml
from rbee.hive.devices.nvml.results import NvmlProcess, NvmlReading, Readings
from rbee.hive.devices.sensors import Sensors
from rbee.hive.devices.text import MOST_TEXT, printable
from rbee.wire.devices import Gpu


class HeldCard(NamedTuple):
    """A card by its index in the devices; bytes, None is unknown, and `problem` why if that is a fault.

    `is_shared` is whether its memory is the machine's RAM. `processes` is None if the driver lists none,
    as only NVIDIA's does. `has_uuid` is whether its UUID is known.
    """

    index: int  # type: ignore[assignment]  # tuple.index, which nobody needs
    name: str
    total: int | None
    used: int | None
    is_shared: bool = False
    processes: tuple[NvmlProcess, ...] | None = None
    problem: str | None = None
    has_uuid: bool = False


def read_held(gpus: tuple[Gpu, ...], sensors: Sensors, nvml: Nvml) -> tuple[HeldCard, ...]:
    """Return each card's memory. NVML is asked only if a card of NVIDIA's is not asleep."""
    asleep = {gpu.index for gpu in gpus if gpu.pci_address and sensors.is_asleep(gpu.pci_address)}
    asked = [gpu for gpu in gpus if gpu.vendor == "nvidia" and gpu.index not in asleep]
    readings = nvml.read_holders() if asked else Readings((), None)
    by_uuid = {reading.uuid: reading for reading in readings.cards if reading.uuid}
    by_address = {reading.pci_address: reading for reading in readings.cards if reading.pci_address}
    held = []
    for gpu in gpus:
        if gpu.index in asleep:
            # The kernel puts a card to sleep only when nothing has it open.
            held.append(_card(gpu, total=gpu.memory_bytes, used=0, processes=()))
        elif gpu in asked:
            reading = by_uuid.get(gpu.uuid or "") or by_address.get(gpu.pci_address or "")
            held.append(_by_nvml(gpu, reading, readings))
        else:
            held.append(_by_sysfs(gpu, sensors))
    return tuple(held)


def unread(gpus: tuple[Gpu, ...], problem: str) -> tuple[HeldCard, ...]:
    """Return cards of which only the size is known, as they could not be read."""
    return tuple(_card(gpu, total=gpu.memory_bytes, used=None, problem=problem) for gpu in gpus)


def _by_nvml(gpu: Gpu, reading: NvmlReading | None, readings: Readings) -> HeldCard:
    if reading is None:
        return _card(gpu, total=gpu.memory_bytes, used=None, problem=why_unread(gpu, readings))
    total = reading.memory_total_bytes
    return _card(
        gpu,
        total=gpu.memory_bytes if total is None else total,
        used=reading.memory_used_bytes,
        processes=reading.processes,
        problem="; ".join(reading.problems) or None,
    )


def _by_sysfs(gpu: Gpu, sensors: Sensors) -> HeldCard:
    if gpu.pci_address is None:
        return _card(gpu, total=gpu.memory_bytes, used=None, problem="its place on the PCI bus is not known")
    signs = sensors.read(gpu.pci_address)
    total = gpu.memory_bytes if signs.memory_total_bytes is None else signs.memory_total_bytes
    return _card(gpu, total=total, used=signs.memory_used_bytes, problem=signs.problem)


def _card(
    gpu: Gpu,
    *,
    total: int | None,
    used: int | None,
    processes: tuple[NvmlProcess, ...] | None = None,
    problem: str | None = None,
) -> HeldCard:
    return HeldCard(
        index=gpu.index,
        name=gpu.name or gpu.vendor,
        total=total,
        used=used,
        is_shared=gpu.memory_kind == "shared",
        processes=processes,
        problem=printable(problem, MOST_TEXT),
        has_uuid=bool(gpu.uuid),
    )
