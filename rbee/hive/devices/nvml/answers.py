"""NVML's answers, checked; each function raises Implausible for what cannot be true."""

from __future__ import annotations

from typing import Any

from rbee.hive.devices.files import MOST_BYTES
from rbee.hive.devices.nvml.results import NvmlProcess
from rbee.hive.devices.pci import normal_address
from rbee.hive.devices.text import printable

PROCESSES_MAX = 512
"""Processes of a card that are listed, of each of NVML's two kinds."""


class Implausible(Exception):
    """NVML reported success and an answer that cannot be true."""


def take_pci_address(info: Any) -> str:
    """Return domain, bus, device and function as sysfs writes them."""
    text = take_text(info.busId)  # bytes or str, by pynvml's version; decoded on access
    address = normal_address(text)
    if address is None:
        raise Implausible(f"{text!r} is not a valid PCI address")
    return address


def take_text(raw: str | bytes) -> str:
    """Return one line of printable text."""
    text = printable(raw)
    if text is None:
        raise Implausible("the driver's answer is empty")
    return text


def take_bytes(memory: Any) -> tuple[int, int]:
    """Return the bytes in use and in all."""
    used, total = int(memory.used), int(memory.total)
    for count in (total, used):
        if count > MOST_BYTES:
            raise Implausible(f"{count} bytes is not a possible value")
    return used, total


def take_processes(processes: Any) -> tuple[NvmlProcess, ...]:
    """Return the processes on a card, PROCESSES_MAX at most; pynvml has None for unknown memory."""
    taken = []
    for process in processes[:PROCESSES_MAX]:
        used = process.usedGpuMemory
        taken.append(NvmlProcess(int(process.pid), used if used is None else min(int(used), MOST_BYTES)))
    return tuple(taken)


def take_utilisation(rates: Any) -> float:
    """Return the percentage of time in which the GPU computed."""
    return _take_up_to(100, int(rates.gpu), "%")


def take_celsius(celsius: int) -> float:
    """Return degrees Celsius."""
    return _take_up_to(1000, celsius, " °C")


def take_watts(milliwatts: int) -> float:
    """Return watts."""
    return _take_up_to(1_000_000, milliwatts / 1000, " W")


def _take_up_to(most: float, number: float, unit: str) -> float:
    if not number <= most:
        raise Implausible(f"{number:g}{unit} is not a possible value")
    return float(number)


def take_handle(handle: Any) -> Any:
    """Return it as it is: NVML's handle of a card."""
    return handle
