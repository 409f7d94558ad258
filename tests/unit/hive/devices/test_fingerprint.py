"""The fingerprint is another one when the devices may be, and only then."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rbee.hive.devices.fingerprint import fingerprint
from rbee.wire.codec import decode
from rbee.wire.types import Fingerprint
from tests.unit.hive.devices.machine import A, B, Machine

AMD = "0000:03:00.0"


@pytest.fixture
def whole(machine: Machine) -> Machine:
    """A machine with a card of NVIDIA's, one of AMD's, and more that is no card."""
    machine.plug_nvidia(A.pci_address)
    machine.plug(AMD, "1002", "744c", driver="amdgpu", mem_info_vram_total="24")
    machine.plug("0000:00:1f.0", "8086", "15b8", code="0x020000", driver="e1000e")
    machine.load_nvidia_driver()
    machine.write("sys/module/nvidia/initstate", "live\n")
    machine.write("sys/devices/system/cpu/online", "0-7\n")
    machine.write("proc/meminfo", "MemTotal:       16777216 kB\nMemFree:       1 kB\n")
    machine.write("dev/nvidia0", "")
    return machine


def folder(machine: Machine, address: str) -> Path:
    return machine.root / "sys/bus/pci/devices" / address


def unbind(machine: Machine) -> None:
    (folder(machine, A.pci_address) / "driver").unlink()


def bind_to_vfio(machine: Machine) -> None:
    unbind(machine)
    (folder(machine, A.pci_address) / "driver").symlink_to("../drivers/vfio-pci")


def limit(machine: Machine) -> None:
    machine.write("proc/self/cgroup", "0::/rbee.slice/rbee-hive.service\n")
    machine.write("sys/fs/cgroup/rbee.slice/memory.max", "1073741824\n")


OTHERS: dict[str, Callable[[Machine], object]] = {
    "a card is new": lambda m: m.plug_nvidia(B.pci_address),
    "a card is gone": lambda m: shutil.rmtree(folder(m, AMD)),
    "a card lost its driver": unbind,
    "a card has another driver": bind_to_vfio,
    "a card has its sensors": lambda m: (folder(m, AMD) / "hwmon").mkdir(),
    "amdgpu is done with its card": lambda m: (folder(m, AMD) / "mem_info_vram_total").unlink(),
    "another NVIDIA driver": lambda m: m.load_nvidia_driver("560.10"),
    "the NVIDIA driver is on its way": lambda m: m.write("sys/module/nvidia/initstate", "coming\n"),
    "no NVIDIA driver": lambda m: shutil.rmtree(m.root / "sys/module/nvidia"),
    "the driver's nodes have come": lambda m: m.write("dev/nvidiactl", ""),
    "a CPU is off": lambda m: m.write("sys/devices/system/cpu/online", "0-6\n"),
    "a limit of the cgroup": limit,
    "more RAM": lambda m: m.write("proc/meminfo", "MemTotal:       25165824 kB\n"),
}

SAME: dict[str, Callable[[Machine], object]] = {
    "nothing": lambda m: None,
    "a network card is new": lambda m: m.plug("0000:00:19.0", "8086", "15b8", code="0x020000"),
    "a display adapter is new": lambda m: m.plug("0000:00:02.0", "1234", "1111"),
    "a balloon moved": lambda m: m.write("proc/meminfo", "MemTotal:       16677216 kB\n"),
    "another node of NVIDIA's": lambda m: m.write("dev/nvidia-uvm", ""),
    "a card is busy": lambda m: m.write(f"sys/bus/pci/devices/{AMD}/gpu_busy_percent", "99\n"),
}


@pytest.mark.parametrize("what", OTHERS)
def test_it_is_another_one_when_the_devices_are(whole: Machine, what: str) -> None:
    before = fingerprint(whole.root, 0)
    OTHERS[what](whole)

    assert fingerprint(whole.root, 0) != before


@pytest.mark.parametrize("what", SAME)
def test_it_is_the_same_as_long_as_the_devices_are(whole: Machine, what: str) -> None:
    before = fingerprint(whole.root, 0)
    SAME[what](whole)

    assert fingerprint(whole.root, 0) == before


def test_what_nvml_noticed_counts(whole: Machine) -> None:
    assert fingerprint(whole.root, 0) != fingerprint(whole.root, 1)


def test_it_fits_the_contract_also_where_there_is_nothing(tmp_path: Path, whole: Machine) -> None:
    for root in (tmp_path / "nowhere", whole.root, Path("/")):
        assert decode(Fingerprint, fingerprint(root, 0)) == fingerprint(root, 0)


def test_a_bus_that_may_not_be_read_is_one_of_its_own(machine: Machine) -> None:
    before = fingerprint(machine.root, 0)
    machine.write("sys/bus/pci/devices", "not a directory")

    assert fingerprint(machine.root, 0) != before
