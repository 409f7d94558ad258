"""What each card of the last detection does: by NVML where it shows the card, else by sysfs."""

from __future__ import annotations

from rbee.hive.devices.nvml.nvml import Nvml
from rbee.hive.devices.nvml.results import NvmlReading, Readings
from rbee.hive.devices.sensors import Sensors
from rbee.hive.devices.text import MOST_TEXT, printable
from rbee.wire.devices import Gpu
from rbee.wire.samples import GpuSample


def read_cards(gpus: tuple[Gpu, ...], sensors: Sensors, nvml: Nvml) -> tuple[GpuSample, ...]:
    """Return one sample for each card. NVML is asked only if a card of NVIDIA's is not asleep."""
    awake = [
        gpu
        for gpu in gpus
        if gpu.vendor == "nvidia" and not (gpu.pci_address and sensors.is_asleep(gpu.pci_address))
    ]
    readings = nvml.read() if awake else Readings((), None)
    by_uuid = {reading.uuid: reading for reading in readings.cards if reading.uuid}
    by_address = {reading.pci_address: reading for reading in readings.cards if reading.pci_address}
    samples = []
    for gpu in gpus:
        reading = by_uuid.get(gpu.uuid or "") or by_address.get(gpu.pci_address or "")
        if gpu in awake and reading is not None:
            samples.append(_told(gpu, reading))
        else:
            samples.append(_seen(gpu, sensors, why_unread(gpu, readings) if gpu in awake else None))
    return tuple(samples)


def unread(gpus: tuple[Gpu, ...], problem: str) -> tuple[GpuSample, ...]:
    """Return samples without readings, of cards that could not be read."""
    return tuple(_sample(gpu, problem=problem) for gpu in gpus)


def _told(gpu: Gpu, reading: NvmlReading) -> GpuSample:
    return _sample(
        gpu,
        utilisation=reading.utilisation_percent,
        used=reading.memory_used_bytes,
        total=reading.memory_total_bytes,
        temperature=reading.temperature_celsius,
        power=reading.power_watts,
        problem="; ".join(reading.problems),
    )


def _seen(gpu: Gpu, sensors: Sensors, why_unread: str | None) -> GpuSample:
    if gpu.pci_address is None:
        return _sample(gpu, problem=why_unread or "its place on the PCI bus is not known")
    signs = sensors.read(gpu.pci_address)
    return _sample(
        gpu,
        utilisation=signs.utilisation_percent,
        used=signs.memory_used_bytes,
        total=signs.memory_total_bytes,
        temperature=signs.temperature_celsius,
        power=signs.power_watts,
        problem=why_unread or signs.problem,
    )


def why_unread(gpu: Gpu, readings: Readings) -> str:
    """Return why NVML has not described a card that is awake."""
    failure = readings.failure
    if failure is not None and failure.cause in ("timeout", "interrupted"):
        return failure.detail
    # What the detection found in the way says more than NVML's refusal.
    return gpu.problem or (failure.detail if failure else "NVML does not show this card")


def _sample(
    gpu: Gpu,
    *,
    utilisation: float | None = None,
    used: int | None = None,
    total: int | None = None,
    temperature: float | None = None,
    power: float | None = None,
    problem: str | None,
) -> GpuSample:
    return GpuSample(
        index=gpu.index,
        uuid=gpu.uuid,
        pci_address=gpu.pci_address,
        utilisation_percent=utilisation,
        memory_used_bytes=used,
        memory_total_bytes=gpu.memory_bytes if total is None else total,
        temperature_celsius=temperature,
        power_watts=power,
        problem=printable(problem, MOST_TEXT),
    )
