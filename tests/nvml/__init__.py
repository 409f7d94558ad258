"""A stub libnvidia-ml.so.1, and the cards that it shows; stub.c tells the file's format."""

from __future__ import annotations

import os
import random
import subprocess
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

LIBRARY = "libnvidia-ml.so.1"
CONFIG_IN_MACHINE = "/etc/nvml-stub.conf"  # where the stub looks if RBEE_NVML_STUB is not set

# Return codes of nvml.h.
UNINITIALIZED = 1
NOT_SUPPORTED = 3
NO_PERMISSION = 4
DRIVER_NOT_LOADED = 9
FUNCTION_NOT_FOUND = 13
GPU_IS_LOST = 15
OPERATING_SYSTEM = 17
MISMATCH = 18
UNKNOWN = 999

_MODELS = (
    ("NVIDIA GeForce RTX 3060", 12),
    ("NVIDIA GeForce RTX 4090", 24),
    ("NVIDIA RTX A6000", 48),
    ("NVIDIA A100-SXM4-80GB", 80),
    ("NVIDIA H100 PCIe", 80),
    ("Tesla T4", 15),
)


@dataclass(frozen=True, slots=True)
class StubCard:
    """A card; `pci_address` as sysfs writes it, which the stub lengthens the way NVML does."""

    pci_address: str
    vram_bytes: int
    uuid: str
    name: str
    load: Load | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """What a card is doing; one without tells nothing but its memory."""

    percent: int
    used_bytes: int
    celsius: int
    milliwatts: int


def unsupported(*functions: str, card: int = 0) -> tuple[str, ...]:
    """Rules for a card that answers these with NVML_ERROR_NOT_SUPPORTED."""
    return tuple(f"fail {function} {card} {NOT_SUPPORTED}" for function in functions)


# As their owners report: `nvidia-smi` shows "Not Supported" for the memory of both, and of a Jetson
# Orin with JetPack 6 also N/A for the bus id, use, temperature and power.
GB10 = StubCard(
    "000f:01:00.0", 0, "GPU-2dee1e25-b3b5-007e-2b55-79f2d0f2ebe5", "NVIDIA GB10", Load(3, 0, 36, 3_000)
)
GB10_RULES = unsupported("DeviceGetMemoryInfo")
ORIN = StubCard("0000:00:00.0", 0, "54bbd3e8-0000-5000-8000-000000000000", "Orin (nvgpu)")
ORIN_RULES = unsupported("DeviceGetMemoryInfo", "DeviceGetPciInfo")


def compile_stub(directory: Path) -> Path:
    """Build the library in `directory` with the system's C compiler; its path."""
    library = directory / LIBRARY
    source = Path(__file__).with_name("stub.c")
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", f"-Wl,-soname,{LIBRARY}"]
    subprocess.run(["cc", *flags, "-o", library, source], check=True)
    return library


def write_cards(
    path: Path, cards: Iterable[StubCard], *, driver: str = "550.54.14", rules: Iterable[str] = ()
) -> None:
    """Have the stub show these cards; `rules` are lines such as 'fail …' and 'process …' as in stub.c.

    All at once, as the stub may be reading.
    """
    cards = list(cards)
    loads = (_load(number, card.load) for number, card in enumerate(cards) if card.load)
    lines = [f"driver {driver}", *(_line(card) for card in cards), *loads, *rules]
    aside = path.with_name(f".{path.name}.new")
    aside.write_text("".join(f"{line}\n" for line in lines), errors="surrogateescape")
    os.replace(aside, path)


def _line(card: StubCard) -> str:
    domain, rest = card.pci_address.split(":", 1)
    return f"card {int(domain, 16):08X}:{rest.upper()} {card.vram_bytes} {card.uuid} {card.name}"


def _load(number: int, load: Load) -> str:
    return f"load {number} {load.percent} {load.used_bytes} {load.celsius} {load.milliwatts}"


def random_cards(rng: random.Random, *, most: int = 8) -> list[StubCard]:
    """One to `most` cards that differ in everything, in the order of their PCI addresses."""
    buses = sorted(rng.sample(range(1, 256), rng.randint(1, most)))
    return [_random_card(rng, bus) for bus in buses]


def _random_card(rng: random.Random, bus: int) -> StubCard:
    model, gib = rng.choice(_MODELS)
    return StubCard(
        pci_address=f"0000:{bus:02x}:00.0",
        vram_bytes=gib * 2**30 - rng.randrange(2**29),
        uuid=f"GPU-{uuid.UUID(int=rng.getrandbits(128))}",
        name=f"{model} #{rng.randrange(10_000)}",
    )
