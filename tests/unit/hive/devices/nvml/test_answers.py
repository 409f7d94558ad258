"""NVML's answers are taken as far as they can be true."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from rbee.hive.devices.files import MOST_BYTES
from rbee.hive.devices.nvml.answers import (
    PROCESSES_MAX,
    Implausible,
    take_bytes,
    take_celsius,
    take_pci_address,
    take_processes,
    take_text,
    take_utilisation,
    take_watts,
)


@pytest.mark.parametrize("written", [b"00000000:C1:00.0", "00000000:c1:00.0"])
def test_an_address_is_written_as_sysfs_writes_it(written: Any) -> None:
    assert take_pci_address(SimpleNamespace(busId=written)) == "0000:c1:00.0"


@pytest.mark.parametrize("written", ["nowhere", "00000000:C1:00"])
def test_what_is_no_address_is_not_passed_on(written: str) -> None:
    with pytest.raises(Implausible, match="is not a valid PCI address"):
        take_pci_address(SimpleNamespace(busId=written))


def test_processes_are_so_many_and_their_memory_may_be_unknown() -> None:
    listed = [SimpleNamespace(pid=7, usedGpuMemory=2**60), SimpleNamespace(pid=8, usedGpuMemory=None)]
    assert take_processes(listed) == ((7, MOST_BYTES), (8, None))
    assert len(take_processes(listed * PROCESSES_MAX)) == PROCESSES_MAX


def test_text_is_one_printable_line() -> None:
    assert take_text(b"NVIDIA\x1b[2J  H100\n") == "NVIDIA [2J H100"
    with pytest.raises(Implausible, match="empty"):
        take_text("\x00 ")


def test_memory_is_no_larger_than_a_contract_s_count() -> None:
    assert take_bytes(SimpleNamespace(used=1, total=MOST_BYTES)) == (1, MOST_BYTES)
    for used, total in ((0, MOST_BYTES + 1), (MOST_BYTES + 1, 1)):
        with pytest.raises(Implausible, match="bytes is not a possible value"):
            take_bytes(SimpleNamespace(used=used, total=total))


@pytest.mark.parametrize(
    ("take", "most", "shown", "beyond"),
    [
        (lambda percent: take_utilisation(SimpleNamespace(gpu=percent)), 100, 100.0, 101),
        (take_celsius, 1000, 1000.0, 1001),
        (take_watts, 10**9, 10.0**6, 10**9 + 1),
    ],
    ids=["%", "°C", "W"],
)
def test_a_sensor_shows_up_to_what_can_be(take: Any, most: int, shown: float, beyond: int) -> None:
    assert take(most) == shown
    with pytest.raises(Implausible, match="is not a possible value"):
        take(beyond)


def test_what_is_no_number_cannot_be_either() -> None:
    with pytest.raises(Implausible):
        take_celsius(float("nan"))  # type: ignore[arg-type]
