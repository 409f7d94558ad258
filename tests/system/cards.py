"""Cards in a booted machine: the tests' own driver library under the real module, and a bus of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from testbed.machine import Machine

from tests.nvml import CONFIG_IN_MACHINE, StubCard, write_cards
from tests.system.commands import HIVE, override, put, rbeectl

DRIVER = "570.86.15"

BUS, DRIVERS = "/run/played/pci", "/run/played/driver"
"""What stands, in the hive's sight, for /sys/bus/pci/devices and /proc/driver, which are the computer's."""


def install_library(machine: Machine, library: Path) -> None:
    """The library where a driver's installer puts it."""
    machine.copy_in(library, "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1")
    machine.run("ldconfig")


def show(
    machine: Machine,
    scratch: Path,
    cards: list[StubCard],
    rules: tuple[str, ...] = (),
    driver: str = DRIVER,
) -> None:
    """The cards that the library is to show, and what they do, from now on."""
    config = scratch / "nvml-stub.conf"
    write_cards(config, cards, driver=driver, rules=list(rules))
    config.chmod(0o644)
    machine.copy_in(config, CONFIG_IN_MACHINE)


def play_bus(machine: Machine) -> None:
    """Give the hive a PCI bus and drivers that a test can change; from its next start on."""
    machine.run("mkdir", "-p", BUS, DRIVERS)
    places = f"{BUS}:/sys/bus/pci/devices {DRIVERS}:/proc/driver"
    override(machine, HIVE, f"[Service]\nBindReadOnlyPaths={places}\n")


def plug(machine: Machine, card: StubCard) -> None:
    """A card of NVIDIA's on the played bus, with NVIDIA's driver."""
    folder = f"{BUS}/.{card.pci_address}"
    for name, content in (("class", "0x030200"), ("vendor", "0x10de"), ("device", "0x2684")):
        put(machine, f"{folder}/{name}", f"{content}\n")
    machine.run("ln", "-s", "../../../../bus/pci/drivers/nvidia", f"{folder}/driver")
    machine.run("mv", folder, f"{BUS}/{card.pci_address}")


def unplug(machine: Machine, card: StubCard) -> None:
    machine.run("mv", f"{BUS}/{card.pci_address}", f"{BUS}/.{card.pci_address}")


def load_driver(machine: Machine, version: str = DRIVER) -> None:
    said = f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {version}  Thu Jan 1 00:00:00 UTC 2026\n"
    put(machine, f"{DRIVERS}/nvidia/version", said)


def unload_driver(machine: Machine) -> None:
    machine.run("rm", "-r", f"{DRIVERS}/nvidia")


def gpus(machine: Machine) -> list[dict[str, Any]]:
    """As rbeectl list-devices tells them."""
    (hive,) = rbeectl(machine, "list-devices", "--json").json["hives"]
    found: list[dict[str, Any]] = hive["devices"]["gpus"]
    return found


def findings(machine: Machine) -> list[str]:
    (hive,) = rbeectl(machine, "list-devices", "--json").json["hives"]
    return [finding["code"] for finding in hive["devices"]["findings"]]
