"""Graphics cards on the PCI bus, as sysfs shows them with or without a driver."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rbee.hive.devices import files
from rbee.hive.devices.memory import VRAM_TOTAL, CardMemory, amd_memory, intel_memory
from rbee.hive.devices.text import printable
from rbee.wire.devices import Finding

NVIDIA = "10de"
AMD = "1002"
INTEL = "8086"

# Adapters that only put a picture on a screen: those that virtual machines emulate, and
# those that a server's management controller carries. Whole vendors, or vendor:device
# where the vendor makes more than that. A driver that is bound shows it itself, see
# _only_displays(): these are for those that have none.
_DISPLAY_ONLY = frozenset(
    {
        "0014:7a06",  # Loongson's display controllers, beside its GPUs
        "0014:7a36",
        "1002:474d",  # ATI Rage XL and XC
        "1002:474e",
        "1002:474f",
        "1002:4752",
        "1002:4753",
        "1002:5046",  # ATI Rage 128, as QEMU emulates it
        "1002:5159",  # ATI Radeon 7000, of servers and as QEMU emulates it
        "1002:515e",  # ATI ES1000
        "1002:5969",  # ATI ES1000
        "1013",  # Cirrus Logic, as QEMU emulates it
        "102b",  # Matrox G200 in Dell's, HPE's and Supermicro's controllers
        "1039",  # SiS
        "1234",  # Bochs and QEMU stdvga
        "126f",  # Silicon Motion
        "1414",  # Microsoft's: of Hyper-V, and what WSL2 shows beside the cards that NVML reports
        "15ad",  # VMware
        "18ca",  # XGI Volari
        "19e5:1711",  # Huawei iBMC
        "1a03",  # ASPEED
        "1ab8",  # Parallels
        "1af4",  # virtio-gpu
        "1b36",  # QXL
        "1d0f:1111",  # Amazon EC2
        "1db7:dc3e",  # Phytium's display controller
        "5333",  # S3
        "80ee",  # VirtualBox
        "fb5d",  # bhyve
    }
)

_BUS = "sys/bus/pci/devices"
_PCI_IDS = ("usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids")
_ADDRESS = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")


class PciCard(NamedTuple):
    """A card's PCI function; ids are four hex digits, `kernel_driver` None where none is bound."""

    address: str
    vendor_id: str
    device_id: str
    kernel_driver: str | None
    product_name: str | None
    label: str | None
    memory: CardMemory


def normal_address(text: str) -> str | None:
    """Return an address as sysfs writes it, 0000:01:00.0; NVML writes 00000000:01:00.0. None if not valid."""
    match = _ADDRESS.fullmatch(text.strip().lower())
    if not match:
        return None
    domain, bus, device, function = match.groups()
    return f"{int(domain, 16):04x}:{bus}:{device}.{function}"


def place(address: str) -> tuple[int, int, int, int]:
    """Return a normal address as numbers that sort: Intel's VMD has domains of five digits."""
    domain, bus, rest = address.split(":")
    device, function = rest.split(".")
    return int(domain, 16), int(bus, 16), int(device, 16), int(function, 16)


def scan(root: Path) -> tuple[list[PciCard], list[Finding]]:
    """Return the cards under `root`/sys that can compute, in order of address, and findings. Never raises.

    A card is what has PCI class 03 (display controller), or class 1200 (processing
    accelerator) and AMD as its vendor: its Instincts without a screen. Left out are pure
    display adapters (_DISPLAY_ONLY, and those whose driver does nothing else) and virtual
    functions of a card that is listed itself. A finding 'pci-unreadable' says that there is
    a bus that may not be read.
    """
    try:
        outlines = _outlines(root)
    except OSError as error:
        return [], [Finding("pci-unreadable", f"{root / _BUS} cannot be read: {error.strerror}")]
    return [_card(root / _BUS / outline.name, outline) for outline in outlines], []


def outline(root: Path) -> list[str]:
    """Return a line for each card that scan() would find, with its driver; quick.

    A driver is named from the moment in which it begins to look at its card; amdgpu is done when
    the card reports its memory and, like i915 and xe, has its sensors.
    """
    try:
        return [
            f"{o.address} {o.vendor_id}:{o.device_id} {o.kernel_driver} "
            f"{os.path.exists(root / _BUS / o.name / VRAM_TOTAL)} "
            f"{os.path.exists(root / _BUS / o.name / 'hwmon')}"
            for o in _outlines(root)
        ]
    except OSError as error:
        return [str(error.errno)]


class _Outline(NamedTuple):
    name: str
    address: str
    vendor_id: str
    device_id: str
    kernel_driver: str | None


def _outlines(root: Path) -> list[_Outline]:
    try:
        names = os.listdir(root / _BUS)
    except FileNotFoundError:
        return []  # a machine without PCI
    found = (_outline(root / _BUS / name, address) for name in names if (address := normal_address(name)))
    return sorted((card for card in found if card), key=lambda card: place(card.address))


def _outline(function: Path, address: str) -> _Outline | None:
    code = _hex(function / "class", 6)
    if code is None or not code.startswith(("03", "1200")):
        return None
    vendor_id, device_id = _hex(function / "vendor", 4), _hex(function / "device", 4)
    if vendor_id is None or device_id is None:
        return None
    if code.startswith("1200") and vendor_id != AMD:
        return None
    if {vendor_id, f"{vendor_id}:{device_id}"} & _DISPLAY_ONLY or os.path.lexists(function / "physfn"):
        return None
    if vendor_id != NVIDIA and _only_displays(function):
        return None
    return _Outline(function.name, address, vendor_id, device_id, _kernel_driver(function))


def _only_displays(function: Path) -> bool:
    """Does the card have a driver with which a program can do nothing but show a picture?

    That is one of the kernel's DRM without a render node, which comes before the node of the card,
    or an old one that has nothing but a frame buffer. (NVIDIA's needs neither to compute. Where no
    driver is bound, as before it is loaded, nothing shows what the card can do.)
    """
    nodes = _names_in(function / "drm")
    if any(name.startswith("card") for name in nodes):
        return not any(name.startswith("renderD") for name in nodes)
    return not nodes and any(name.startswith("fb") for name in _names_in(function / "graphics"))


def _names_in(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _card(function: Path, outline: _Outline) -> PciCard:
    return PciCard(
        address=outline.address,
        vendor_id=outline.vendor_id,
        device_id=outline.device_id,
        kernel_driver=outline.kernel_driver,
        product_name=printable(files.read_value(function / "product_name")),
        label=printable(files.read_value(function / "label")),
        memory=_memory(function, outline),
    )


def _memory(function: Path, outline: _Outline) -> CardMemory:
    if outline.vendor_id == INTEL:
        return intel_memory(function, outline.address, outline.kernel_driver)
    return amd_memory(function) if outline.vendor_id == AMD else CardMemory()


def _hex(path: Path, digits: int) -> str | None:
    match = re.fullmatch(rb"0x([0-9a-fA-F]{%d})" % digits, files.read_value(path) or b"")
    return match[1].decode().lower() if match else None


def _kernel_driver(function: Path) -> str | None:
    try:
        return printable(Path(os.readlink(function / "driver")).name)
    except OSError:
        return None


def names(root: Path, wanted: Iterable[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """What pci.ids calls these (vendor id, device id); reads no further than it must."""
    missing = set(wanted)
    found: dict[tuple[str, str], str] = {}
    for path in _PCI_IDS:
        if not missing:
            break
        try:
            with (root / path).open("rb") as lines:
                _look_up(lines, missing, found)
        except OSError:
            continue
    return found


def _look_up(
    lines: Iterable[bytes], missing: set[tuple[str, str]], found: dict[tuple[str, str], str]
) -> None:
    """Move from `missing` to `found`. Vendors start a line, their devices come after one tab.

    (Subsystems come after two, and so match no device id. Comments and empty lines stand anywhere,
    also between the devices of one vendor.)
    """
    vendors = {vendor.encode() for vendor, _ in missing}
    vendor = b""
    for line in lines:
        if line.startswith(b"#") or not line.strip():
            continue
        if not line.startswith(b"\t"):
            vendor = line[:4]
        elif vendor in vendors:
            key = (vendor.decode(), line[1:5].decode(errors="replace"))
            name = printable(line[5:])
            if key in missing and name:
                found[key] = name
                missing.discard(key)
                if not missing:
                    return
