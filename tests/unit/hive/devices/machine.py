"""A machine whose kernel is a folder and whose driver library is a stub of NVIDIA's.

Each scenario that asks NVML has a process of its own: pynvml never unloads a library.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from rbee.wire.codec import decode
from rbee.wire.devices import Devices
from tests.nvml import DRIVER_NOT_LOADED, StubCard, write_cards

REPOSITORY = Path(__file__).parents[4]
DRIVER = "550.54.14"
A = StubCard(
    "0000:01:00.0", 24 * 2**30, "GPU-aaaaaaaa-0000-0000-0000-000000000000", "NVIDIA GeForce RTX 4090"
)
B = StubCard("0000:02:00.0", 80 * 2**30, "GPU-bbbbbbbb-0000-0000-0000-000000000000", "NVIDIA H100 PCIe")
C = StubCard("0000:c1:00.0", 15 * 2**30, "GPU-cccccccc-0000-0000-0000-000000000000", "Tesla T4")

PRELUDE = """
import json, os, sys, threading, time
from pathlib import Path
from rbee.wire.codec import encode
from rbee.hive.devices import Detector
root, nvml_timeout = Path(sys.argv[1]), float(sys.argv[2])
detector = Detector(root, nvml_timeout=nvml_timeout)
def replace(config):
    os.replace(config, os.environ["RBEE_NVML_STUB"])
def tell(said):
    print(json.dumps(said), flush=True)
def detect():
    began = time.monotonic()
    devices = detector.detect()
    ended = time.monotonic()
    tell({"devices": encode(devices), "took": ended - began, "ended": ended})
def cards():
    tell([encode(card) for card in detector.read_cards()])
"""

CPUINFO = "\n".join(
    f"processor\t: {n}\nmodel name\t: AMD EPYC 9354 32-Core Processor\nphysical id\t: {n // 4}\n"
    f"core id\t\t: {n % 2}\ncpu cores\t: 2\n"
    for n in range(8)
)


@dataclass(frozen=True)
class Answer:
    devices: Devices
    took: float  # seconds
    ended: float  # on the monotonic clock, which processes share


@dataclass(frozen=True)
class Machine:
    """A filesystem root, a driver library and what it shows."""

    root: Path
    libraries: Path
    config: Path

    def show(self, *cards: StubCard, rules: tuple[str, ...] = ()) -> None:
        write_cards(self.config, cards, rules=rules, driver=DRIVER)

    def run(self, script: str, *, nvml_timeout: float = 30.0) -> list[object]:
        """What the script told, line by line."""
        done = subprocess.run(
            [sys.executable, "-c", PRELUDE + script, str(self.root), str(nvml_timeout)],
            env={
                "PYTHONPATH": str(REPOSITORY),
                "LD_LIBRARY_PATH": str(self.libraries),
                "RBEE_NVML_STUB": str(self.config),
            },
            stdout=subprocess.PIPE,
            timeout=60,
            check=True,
        )
        return [json.loads(line) for line in done.stdout.splitlines()]

    def answers(self, script: str, *, nvml_timeout: float = 30.0) -> list[Answer]:
        return [answer_of(said) for said in self.run(script, nvml_timeout=nvml_timeout)]

    def detect(self, before: str = "") -> Devices:
        return self.answers(f"{before}\ndetect()")[0].devices

    def write(self, path: str, content: str) -> None:
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_text(content)

    def load_nvidia_driver(self, version: str = DRIVER) -> None:
        self.write("sys/module/nvidia/version", f"{version}\n")

    def plug(
        self,
        address: str,
        vendor: str,
        device: str,
        *,
        code: str = "0x030000",
        driver: str | None = None,
        **files: str,
    ) -> None:
        """`files` by their path, with two underscores for a slash."""
        function = f"sys/bus/pci/devices/{address}"
        contents = {"class": code, "vendor": f"0x{vendor}", "device": f"0x{device}", **files}
        for name, content in contents.items():
            self.write(f"{function}/{name.replace('__', '/')}", f"{content}\n")
        if driver:
            (self.root / function / "driver").symlink_to(f"../../../../bus/pci/drivers/{driver}")

    def plug_nvidia(self, address: str, driver: str | None = "nvidia") -> None:
        self.plug(address, "10de", "2684", code="0x030200", driver=driver)


def answer_of(said: object) -> Answer:
    assert isinstance(said, dict)
    # decode() also checks every limit of the contract
    return Answer(decode(Devices, said["devices"]), said["took"], said["ended"])


def new_machine(directory: Path, libraries: Path) -> Machine:
    machine = Machine(directory / "root", libraries, directory / "nvml.conf")
    machine.write("proc/cpuinfo", CPUINFO)
    machine.write("proc/meminfo", "MemTotal:       16384 kB\nMemFree:        1 kB\n")
    machine.show(rules=(f"fail Init * {DRIVER_NOT_LOADED}",))
    return machine
