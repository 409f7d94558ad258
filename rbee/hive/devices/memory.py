"""Whose memory a card computes in, its own or the machine's, as its kernel driver reports in sysfs."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rbee.hive.devices import files
from rbee.wire.devices import MemoryKind

VRAM_TOTAL = "mem_info_vram_total"


class CardMemory(NamedTuple):
    """In bytes, as in Gpu; None is unknown."""

    kind: MemoryKind | None = None
    vram_bytes: int | None = None
    shared_bytes: int | None = None


def amd_memory(function: Path) -> CardMemory:
    """amdgpu reports VRAM, and GTT, which is RAM that the card may use.

    Every card has GTT. It counts for one that is built into a processor: there "VRAM" is only what
    the firmware has set aside of the same RAM, often 512 MiB.
    """
    vram = files.read_byte_count(function / VRAM_TOTAL) or None
    if is_apu(function):
        return CardMemory("shared", vram, files.read_byte_count(function / "mem_info_gtt_total"))
    return CardMemory("dedicated" if vram else None, vram)


def intel_memory(function: Path, address: str, kernel_driver: str | None) -> CardMemory:
    """i915 and xe report no sizes, and have sensors only for cards with memory of their own.

    What is built into a processor is always at 00:02.0.
    """
    if kernel_driver not in ("i915", "xe"):
        return CardMemory()
    if (function / "hwmon").exists():
        return CardMemory("dedicated")
    return CardMemory("shared" if address == "0000:00:02.0" else None)


def is_apu(function: Path) -> bool:
    """Is this amdgpu's card built into a processor?

    Only those have the voltage of a northbridge (hwmon_attributes_visible() of amdgpu_pm.c). The MI300A is
    excepted there: nothing is set aside for it, and its VRAM is 0 (gmc_v9_0_mc_init(), "APP APU").
    """
    if files.read_byte_count(function / VRAM_TOTAL) == 0:
        return True
    return any(files.read_value(path) == b"vddnb" for path in (function / "hwmon").glob("hwmon*/in1_label"))


def memory_in_use(function: Path) -> tuple[int | None, int | None]:
    """Bytes used and bytes in all, of all the memory that amdgpu's card can use."""
    kinds = ("vram", "gtt") if is_apu(function) else ("vram",)
    used = [files.read_byte_count(function / f"mem_info_{kind}_used") for kind in kinds]
    total = [files.read_byte_count(function / f"mem_info_{kind}_total") for kind in kinds]
    return _sum(used), _sum(total)


def _sum(counts: list[int | None]) -> int | None:
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None
