"""A PC that QEMU emulates: display adapters with Debian's drivers, several sockets, limits by cpusets."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from testbed.emulated import QemuMachine
from testbed.trees import Trees

DRIVERS = ("aty128fb", "bochs", "cirrus", "qxl", "radeon", "virtio_gpu", "vmwgfx")

LOOK = """
import sys
sys.path.insert(0, "/usr/share/rbee-hive")
import json
from pathlib import Path
from rbee.hive.devices import pci
from rbee.hive.devices.cpu import detect_cpu
from rbee.wire.codec import encode

adapters = {}
for function in Path("/sys/bus/pci/devices").iterdir():
    if (function / "class").read_text().startswith("0x03"):
        driver = function / "driver"
        adapters[function.name] = driver.resolve().name if driver.exists() else None
cards, findings = pci.scan(Path("/"))
cpu, unreadable = detect_cpu(Path("/"))
print(json.dumps({
    "adapters": adapters,
    "cards": [f"{card.vendor_id}:{card.device_id} {card.kernel_driver}" for card in cards],
    "findings": len(findings) + len(unreadable),
    "cpu": encode(cpu),
}))
"""

LIMIT = """
cd /sys/fs/cgroup
echo +cpuset +memory >cgroup.subtree_control
mkdir guest
echo 1,3 >guest/cpuset.cpus
echo 600M >guest/memory.max
cat guest/cpuset.cpus.effective
echo $$ >guest/cgroup.procs
exec "$@"
"""


def display_devices() -> list[str]:
    """This QEMU's PCI cards that show a picture, but for those that need more of this computer."""
    command = ["qemu-system-x86_64", "-device", "help"]
    listed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    [display] = re.findall(r"^Display devices:\n(.+?)\n\n", listed, re.MULTILINE | re.DOTALL)
    names = re.findall(r'^name "(.+?)", bus PCI', display, re.MULTILINE)
    plain = [name for name in names if not re.search("vhost-user|-gl|rutabaga", name)]
    plain.sort(key=lambda name: name != "qxl-vga")  # which insists on being the first
    return [*plain, "ati-vga,model=rv100"]  # beside ati-vga, which is a Rage 128


def look(machine: QemuMachine) -> Any:
    return json.loads(machine.run("python3", "-c", LOOK).stdout)


def test_no_adapter_that_qemu_emulates_is_a_gpu_and_processors_are_what_lscpu_lists(
    suite: str, trees: Trees, debs: list[Path]
) -> None:
    devices = display_devices()
    assert {"VGA", "bochs-display", "cirrus-vga", "virtio-gpu-pci", "vmware-svga"} <= set(devices)
    with QemuMachine(
        trees.installed(suite, debs),
        trees.kernel(suite),
        processors="4,sockets=2,cores=2,threads=1",
        devices=devices,
        modules=DRIVERS,
    ) as machine:
        bare = look(machine)
        assert set(bare["adapters"].values()) == {None, "virtio-pci"}
        assert len(bare["adapters"]) == len(devices)
        assert (bare["cards"], bare["findings"]) == ([], 0)

        machine.load_modules()
        driven = look(machine)
        drivers = {"aty128fb", "bochs-drm", "cirrus", "radeon", "virtio-pci"}
        assert drivers <= set(driven["adapters"].values()), driven
        assert (driven["cards"], driven["findings"]) == ([], 0)

        cpu = driven["cpu"]
        rows = machine.run("lscpu", "--parse=CPU,CORE,SOCKET").stdout.splitlines()
        columns = zip(*(row.split(",") for row in rows if row[0] != "#"), strict=True)
        threads, cores, sockets = (len(set(column)) for column in columns)
        assert (cpu["sockets"], cpu["cores"], cpu["threads"]) == (sockets, cores, threads) == (2, 4, 4)
        assert cpu["ram_bytes"] == int(machine.run("free", "--bytes").stdout.splitlines()[1].split()[1])

        limited = machine.run("sh", "-ec", LIMIT, "sh", "python3", "-c", LOOK).stdout
        effective, _, looked = limited.partition("\n")
        assert effective == "1,3"
        cpu = json.loads(looked)["cpu"]
        assert (cpu["threads"], cpu["cpus_allowed"], cpu["ram_allowed_bytes"]) == (4, 2, 600 * 2**20)
