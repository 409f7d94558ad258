"""One list of devices, from the kernel, the PCI bus and NVML."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from rbee.hive.devices import pci
from rbee.hive.devices.cards import read_cards
from rbee.hive.devices.cpu import detect_cpu
from rbee.hive.devices.fingerprint import fingerprint
from rbee.hive.devices.nvml.nvml import Nvml
from rbee.hive.devices.nvml.results import MOST_CARDS, Failure, Inventory, NvmlCard
from rbee.hive.devices.pci import NVIDIA, PciCard
from rbee.hive.devices.sensors import Sensors
from rbee.hive.devices.text import MOST_TEXT, printable
from rbee.wire.devices import Devices, Finding, Gpu

if TYPE_CHECKING:
    from rbee.hive.devices.held import HeldCard
    from rbee.wire.samples import GpuSample

_VENDORS = {NVIDIA: "nvidia", pci.AMD: "amd", pci.INTEL: "intel"}


# Through which NVML asks NVIDIA's driver: that of a PC, of a Jetson (in several versions) and of WSL2.
_NODES = ("nvidiactl", "nvhost-ctrl-gpu", "nvgpu/igpu0/ctrl", "nvmap", "dxg")

# What a finding means for a single card.
_SHORT = {
    "no-driver": "the NVIDIA driver is not loaded",
    "no-access": "no access to the NVIDIA driver",
    "library-missing": "NVIDIA's library libnvidia-ml.so.1 is missing",
    "driver-mismatch": "NVIDIA's driver and library do not match",
    "module-missing": "the Python module pynvml is missing",
    "timeout": "NVML did not answer in time",
    "interrupted": "the hive was stopping",
}


class Detector:
    """Detects devices under a filesystem root. Built once by the hive; holds NVML's thread.

    `detect` may be called from any thread, by several at once. NVML is asked whatever the
    root, as its library knows only the real machine.
    """

    def __init__(self, root: Path = Path("/"), *, nvml_timeout: float = 10.0) -> None:
        self._root = root
        self._nvml = Nvml(nvml_timeout)
        self._sensors = Sensors(root)
        self._latest: Devices | None = None

    @property
    def latest(self) -> Devices | None:
        """The result of the last detection; None before the first."""
        return self._latest

    def detect(self) -> Devices:
        """Return the present devices within `nvml_timeout` seconds and the moment that sysfs takes.

        Raises nothing: what is unknown is None, a card's `problem` says why, and a finding
        says what kept detection from being complete. The findings' codes:
        no-driver, no-access, library-missing, module-missing, driver-mismatch, timeout, interrupted,
        nvml-failed, pci-unreadable, cpu-unreadable, too-many-gpus. A machine without an NVIDIA card
        or driver has no finding for lacking NVIDIA's library.
        """
        cpu, cpu_findings = detect_cpu(self._root)
        cards, pci_findings = pci.scan(self._root)
        inventory = self._nvml.look()
        nvidia = [card for card in cards if card.vendor_id == NVIDIA]
        finding = _nvml_finding(self._root, inventory.failure, nvidia) if inventory.failure else None
        gpus = [
            *_nvidia_gpus(self._root, nvidia, inventory, finding),
            *_other_gpus(self._root, [card for card in cards if card.vendor_id != NVIDIA]),
        ]
        findings = [*cpu_findings, *pci_findings, *([finding] if finding else [])]
        if len(gpus) > MOST_CARDS:
            findings.append(Finding("too-many-gpus", f"{len(gpus)} GPUs, of which {MOST_CARDS} are listed"))
        found = Devices(cpu=cpu, gpus=_in_order(gpus)[:MOST_CARDS], findings=tuple(_fit(f) for f in findings))
        self._latest = found
        return found

    def read_cards(self) -> tuple[GpuSample, ...]:
        """Return what the cards of the last detection do; detects first if there was none.

        May wait for a kernel driver's files, and for NVML as long as Nvml.read().
        """
        gpus = (self._latest or self.detect()).gpus
        return read_cards(gpus, self._sensors, self._nvml)

    def read_held(self) -> tuple[HeldCard, ...]:
        """Return who holds the memory of the cards of the last detection; may wait as read_cards()."""
        from rbee.hive.devices.held import read_held  # which a hive without workers does not need

        return read_held((self._latest or self.detect()).gpus, self._sensors, self._nvml)

    def fingerprint(self) -> str:
        """Return a text that changes when the devices may have changed; waits for no driver."""
        return fingerprint(self._root, self._nvml.changes)

    def close(self) -> None:
        """Have a detection that waits for NVML return now, so that it does not delay the hive's exit."""
        self._nvml.close()


def _fit(finding: Finding) -> Finding:
    return Finding(finding.code, printable(finding.detail, MOST_TEXT) or "")


def _in_order(gpus: list[Gpu]) -> tuple[Gpu, ...]:
    """Numbered by PCI address; cards whose address is unknown come last, in NVML's order."""
    placed = sorted(
        (gpu for gpu in gpus if gpu.pci_address), key=lambda gpu: pci.place(gpu.pci_address or "")
    )
    ordered = placed + [gpu for gpu in gpus if not gpu.pci_address]
    return tuple(gpu._replace(index=index) for index, gpu in enumerate(ordered))


# Why NVML reports nothing


def _nvml_finding(root: Path, failure: Failure, nvidia: list[PciCard]) -> Finding | None:
    """Return a finding for NVML's failure, given what the kernel shows; None without a card or driver."""
    is_loaded = _is_driver_loaded(root)
    if failure.cause in ("library-missing", "driver-not-loaded") and not is_loaded:
        return _no_driver(failure, nvidia) if nvidia else None
    if failure.cause == "driver-not-loaded" or failure.cause == "unknown":
        # A driver whose nodes cannot be opened looks to NVML like no driver, or, where a
        # cgroup denies them, like an unknown error.
        obstacle = _obstacle(root)
        if obstacle and is_loaded:
            return Finding("no-access", f"the NVIDIA driver is loaded, but {obstacle} ({failure.detail})")
        return Finding("nvml-failed", f"NVML failed: {failure.detail}")
    if failure.cause == "no-permission":
        obstacle = _obstacle(root)
        return Finding("no-access", f"NVML refuses: {failure.detail}" + (f"; {obstacle}" if obstacle else ""))
    if failure.cause == "library-missing":
        return Finding("library-missing", f"the NVIDIA driver is loaded, its library not: {failure.detail}")
    if failure.cause == "driver-mismatch":
        version = _kernel_version(root)
        loaded = f"; the loaded driver is {version}" if version else ""
        return Finding(
            "driver-mismatch", f"NVIDIA's driver and library do not match: {failure.detail}{loaded}"
        )
    if failure.cause == "failed":
        return Finding("nvml-failed", f"NVML failed: {failure.detail}")
    return Finding(failure.cause, failure.detail)


def _no_driver(failure: Failure, nvidia: list[PciCard]) -> Finding:
    bound = sorted({card.kernel_driver for card in nvidia if card.kernel_driver})
    there = f"; bound to {', '.join(bound)}" if bound else ""
    return Finding(
        "no-driver",
        f"{len(nvidia)} NVIDIA card(s) on the PCI bus, but NVIDIA's driver is not loaded{there} "
        f"({failure.detail})",
    )


def _is_driver_loaded(root: Path) -> bool:
    return any(os.path.exists(root / place) for place in ("proc/driver/nvidia", "sys/module/nvidia"))


def _obstacle(root: Path) -> str | None:
    """What is wrong with the driver's device nodes.

    By access(2), which heeds modes and cgroups (DeviceAllow=) and does not, as opening
    would, enter a driver that may be wedged.
    """
    control = [root / "dev" / name for name in _NODES if os.path.exists(root / "dev" / name)]
    present = [*control, *sorted((root / "dev").glob("nvidia[0-9]*"))]
    denied = [f"/{node.relative_to(root)}" for node in present if not os.access(node, os.R_OK | os.W_OK)]
    if denied:
        return f"this user or unit may not open {', '.join(denied)}"
    if not control:
        return "there is no /dev/nvidiactl (hidden from this unit, or to be made by nvidia-modprobe)"
    return None


def _kernel_version(root: Path) -> str | None:
    """The version of the loaded NVIDIA kernel module."""
    for path in ("sys/module/nvidia/version", "proc/driver/nvidia/version"):
        try:
            text = (root / path).read_text(errors="replace")
        except OSError:
            continue
        if match := re.search(r"\b\d+\.\d+(\.\d+)*\b", text):
            return match[0]
    return None


# NVIDIA's cards, once each


def _nvidia_gpus(
    root: Path, on_bus: list[PciCard], inventory: Inventory, finding: Finding | None
) -> list[Gpu]:
    """Return the cards that NVML shows, and those that it does not, matched by their PCI address."""
    version = inventory.driver_version or _kernel_version(root)
    by_address = {card.address: card for card in on_bus}
    shown: dict[str, Gpu] = {}
    unplaced: list[NvmlCard] = []
    for card in inventory.cards:
        if card.pci_address is None:
            unplaced.append(card)
        else:
            shown.setdefault(card.pci_address, _told(card, version))
    spare = [card for address, card in by_address.items() if address not in shown]
    foreign = [card for card in spare if card.kernel_driver not in (None, "nvidia")]
    own = [card for card in spare if card not in foreign]
    return [
        *shown.values(),
        *_paired(root, own, unplaced, version, finding),
        *_untold(root, foreign, version, "NVML does not see a card that another kernel driver has"),
    ]


def _paired(
    root: Path, spare: list[PciCard], unplaced: list[NvmlCard], version: str | None, finding: Finding | None
) -> Iterator[Gpu]:
    """Match cards that NVML shows without an address with cards on the bus that it does not show.

    If there is one of each, they are the same card. If there are more, nothing shows which is which: each is
    listed once, without an address.
    """
    if all(card.is_nameless for card in unplaced):
        said = dict.fromkeys(problem for card in unplaced for problem in card.problems)
        yield from _untold(root, spare, version, "; ".join(said) or _why_unseen(finding))
        yield from (_told(card, version) for card in unplaced[len(spare) :])
    elif len(spare) == len(unplaced) == 1:
        card = unplaced[0]
        # If NVML has no address for this kind of card, that is not a problem.
        hint = ("PCI address taken from sysfs",) if card.problems else ()
        yield _told(card._replace(pci_address=spare[0].address, problems=(*card.problems, *hint)), version)
    else:
        places = ", ".join(card.address for card in spare)
        for card in unplaced:
            hint = (f"PCI address is one of {places}",) if places and card.problems else ()
            yield _told(card._replace(problems=(*card.problems, *hint)), version)
        for _ in spare[len(unplaced) :]:
            problem = f"NVML does not show one of the cards at {places}"
            yield _told(NvmlCard(problems=(problem,)), None)


def _why_unseen(finding: Finding | None) -> str:
    if finding is None:
        return "NVML does not show this card"
    return _SHORT.get(finding.code, "NVML failed")


def _told(card: NvmlCard, version: str | None) -> Gpu:
    return Gpu(
        index=0,
        vendor="nvidia",
        name=card.name,
        uuid=card.uuid,
        vram_bytes=card.vram_bytes,
        driver=version,
        pci_address=card.pci_address,
        problem=printable("; ".join(card.problems), MOST_TEXT),
        memory_kind=card.memory_kind,
    )


def _untold(root: Path, cards: list[PciCard], version: str | None, why: str) -> Iterator[Gpu]:
    for gpu, card in zip(_on_bus(root, cards), cards, strict=True):
        driver = (version if card.kernel_driver == "nvidia" else None) or card.kernel_driver
        yield gpu._replace(driver=driver, problem=printable(why, MOST_TEXT))


# Cards that only the bus shows


def _other_gpus(root: Path, cards: list[PciCard]) -> Iterator[Gpu]:
    """A value that sysfs lacks is unknown, which is not a problem: Intel's drivers report no VRAM."""
    for gpu in _on_bus(root, cards):
        yield gpu._replace(problem=None if gpu.driver else "no kernel driver is bound to it")


def _on_bus(root: Path, cards: list[PciCard]) -> Iterator[Gpu]:
    """Named by the card itself, else by pci.ids, else by the board's firmware, else not."""
    known = pci.names(root, [(card.vendor_id, card.device_id) for card in cards if not card.product_name])
    for card in cards:
        yield Gpu(
            index=0,
            vendor=_VENDORS.get(card.vendor_id, card.vendor_id),
            name=card.product_name or known.get((card.vendor_id, card.device_id)) or card.label,
            uuid=None,
            vram_bytes=card.memory.vram_bytes,
            driver=card.kernel_driver,
            pci_address=card.address,
            memory_kind=card.memory.kind,
            shared_memory_bytes=card.memory.shared_bytes,
        )
