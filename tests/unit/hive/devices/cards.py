"""Cards that the stub shows, and what a sample of them is."""

from __future__ import annotations

import dataclasses
from typing import Any

from rbee.wire.codec import decode
from rbee.wire.devices import Devices, Gpu
from rbee.wire.samples import GpuSample
from tests.nvml import Load, StubCard
from tests.unit.hive.devices.machine import DRIVER, Machine

BUSY = Load(87, 20 * 2**30, 71, 312_500)
IDLE = Load(0, 2**20, 35, 22_000)

COUNTED = """
import pynvml
calls = []
def counted(name):
    real = getattr(pynvml, name)
    def call(*arguments):
        calls.append(name)
        return real(*arguments)
    setattr(pynvml, name, call)
counted("nvmlInit")
counted("nvmlShutdown")
"""


def doing(card: StubCard, load: Load) -> StubCard:
    return dataclasses.replace(card, load=load)


def sample_of(index: int, card: StubCard, load: Load | None, problem: str | None = None) -> GpuSample:
    return GpuSample(
        index=index,
        uuid=card.uuid,
        pci_address=card.pci_address,
        utilisation_percent=load.percent if load else None,
        memory_used_bytes=load.used_bytes if load else None,
        memory_total_bytes=card.vram_bytes,
        temperature_celsius=load.celsius if load else None,
        power_watts=load.milliwatts / 1000 if load else None,
        problem=problem,
    )


def cards_of(machine: Machine, script: str = "cards()", **options: Any) -> list[tuple[GpuSample, ...]]:
    """What each cards() of the script told; decode() checks the contract's limits, too."""
    told = [said for said in machine.run(script, **options) if isinstance(said, list)]
    return [tuple(decode(GpuSample, card) for card in said) for said in told]


def gpu_of(index: int, card: StubCard) -> Gpu:
    return Gpu(
        index=index,
        vendor="nvidia",
        name=card.name,
        uuid=card.uuid,
        vram_bytes=card.vram_bytes,
        driver=DRIVER,
        pci_address=card.pci_address,
        memory_kind="dedicated",
    )


def codes_of(devices: Devices) -> list[str]:
    return [finding.code for finding in devices.findings]
