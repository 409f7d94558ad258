"""NVIDIA cards in a booted machine: a library of the tests' own under the real module, in the real hive."""

from __future__ import annotations

import json
import random
import secrets
from pathlib import Path

from testbed.machine import Machine

from tests.nvml import GB10, GB10_RULES, StubCard, random_cards
from tests.system.cards import DRIVER, findings, gpus, install_library, show
from tests.system.commands import HIVE, add_hive, configure, rbeectl


def put_in(
    machine: Machine, library: Path, scratch: Path, cards: list[StubCard], rules: tuple[str, ...] = ()
) -> None:
    install_library(machine, library)
    show(machine, scratch, cards, rules)


def test_list_devices_shows_exactly_the_cards_that_were_drawn(
    machine: Machine, library: Path, tmp_path: Path
) -> None:
    seed = secrets.randbits(32)
    print(f"the cards of seed {seed}")  # pytest shows it with a failure
    cards = random_cards(random.Random(seed))
    put_in(machine, library, tmp_path, cards)
    adding = add_hive(machine)
    shown = {
        (gpu["uuid"], gpu["name"], gpu["vram_bytes"], gpu["driver"], gpu["pci_address"], gpu["problem"])
        for gpu in gpus(machine)
    }
    assert shown == {
        (card.uuid, card.name, card.vram_bytes, DRIVER, card.pci_address, None) for card in cards
    }
    assert [gpu["index"] for gpu in gpus(machine)] == list(range(len(cards)))
    assert findings(machine) == []
    table = rbeectl(machine, "list-devices").out
    for card in cards:
        assert card.uuid in table
        assert f"({card.name}, " in adding.out


def test_one_broken_card_among_good_ones_is_told_apart(
    machine: Machine, library: Path, tmp_path: Path
) -> None:
    cards = [
        StubCard(f"0000:{bus:02x}:00.0", bus * 2**30, f"GPU-0000000{bus}", f"Card {bus}") for bus in (1, 2, 3)
    ]
    put_in(machine, library, tmp_path, cards, ("fail DeviceGetMemoryInfo 1 15",))
    add_hive(machine)
    by_uuid = {gpu["uuid"]: gpu for gpu in gpus(machine)}
    broken = by_uuid[cards[1].uuid]
    assert broken["vram_bytes"] is None
    assert "VRAM" in broken["problem"]
    for card in (cards[0], cards[2]):
        assert (by_uuid[card.uuid]["vram_bytes"], by_uuid[card.uuid]["problem"]) == (card.vram_bytes, None)


def test_a_card_that_computes_in_the_machines_memory_is_well_and_says_so(
    machine: Machine, library: Path, tmp_path: Path
) -> None:
    put_in(machine, library, tmp_path, [GB10], GB10_RULES)
    adding = add_hive(machine)
    assert f"gpu0 ({GB10.name}, shared memory)" in adding.out
    (gpu,) = gpus(machine)
    assert (gpu["vram_bytes"], gpu["memory_kind"], gpu["problem"]) == (None, "shared", None)
    assert findings(machine) == []
    (hive,) = rbeectl(machine, "list-devices", "--json").json["hives"]
    (sample,) = hive["sample"]["gpus"]
    assert (sample["utilisation_percent"], sample["memory_used_bytes"], sample["problem"]) == (3, None, None)
    assert 'rbee_gpu_problem{gpu="gpu0",hive="localhost"} 0.0' in rbeectl(machine, "metrics").out
    shown = rbeectl(machine, "show", "localhost", "-p", "GPU0MemoryKind,GPU0MemoryTotal,GPU0Problem")
    assert shown.lines == ["GPU0MemoryKind=shared", "GPU0MemoryTotal=", "GPU0Problem="]


def test_wsl2s_library_is_found_in_its_own_place(machine: Machine, library: Path, tmp_path: Path) -> None:
    card = StubCard("0000:01:00.0", 24 * 2**30, "GPU-00000001", "NVIDIA GeForce RTX 4090")
    # A folder that Windows provides, and that ld.so is told of only where WSL may write into /etc.
    machine.run("mkdir", "-p", "/usr/lib/wsl/lib")
    machine.copy_in(library, "/usr/lib/wsl/lib/libnvidia-ml.so.1")
    show(machine, tmp_path, [card])
    add_hive(machine)
    assert [(gpu["name"], gpu["problem"]) for gpu in gpus(machine)] == [(card.name, None)]
    assert findings(machine) == []


def test_the_hive_may_open_the_nodes_of_wsl2_and_of_a_jetson(machine: Machine) -> None:
    allowed = machine.run("systemctl", "show", "--property=DeviceAllow", HIVE).stdout
    for node in ("/dev/dxg", "/dev/nvmap", "char-*.gpu", "char-nvhost*"):
        assert f"DeviceAllow={node} rw" in allowed.splitlines()


def test_a_wedged_driver_wedges_neither_the_hive_nor_its_exit(
    machine: Machine, library: Path, tmp_path: Path
) -> None:
    configure(machine, "[Hive]\nNvmlTimeoutSec=1s\n")
    put_in(machine, library, tmp_path, random_cards(random.Random(2)), ("hang DeviceGetCount *",))
    add_hive(machine)
    assert findings(machine) == ["timeout"]
    machine.run("systemctl", "stop", HIVE, timeout=4)
    shown = machine.run("systemctl", "show", "--property=Result", "--value", HIVE).stdout
    assert shown == "success\n"


RENAMED = {"0x48": {0xD01: "Kunpeng-920"}}
"""Names that the lscpu of Debian 12 has, and that of Debian 13 has no more."""

LSCPU = """
import sys
sys.path.insert(0, "/usr/share/rbee-hive")
import json, pathlib, re, subprocess
from rbee.hive.devices import arm

root, told = pathlib.Path("/run/played"), {}
cpus = root / "sys/devices/system/cpu"
(root / "proc").mkdir(parents=True)
cpus.mkdir(parents=True)
(cpus / "kernel_max").write_text("8191\\n")
for name in ("online", "present", "possible"):
    (cpus / name).write_text("0-4095\\n")
for implementer in [f"{number:#04x}" for number in (*range(0x41, 0x7B), 0xC0)]:
    # What lscpu shows as the model of an ARM is its revision: here the number of the part.
    parts = "".join(
        f"processor : {part}\\nCPU implementer : {implementer}\\n"
        f"CPU part : {part:#05x}\\nCPU revision : {part}\\n\\n"
        for part in range(4096)
    )
    (root / "proc/cpuinfo").write_text(parts)
    shown = subprocess.run(["lscpu", "--sysroot", root], stdout=subprocess.PIPE, text=True, check=True).stdout
    names = re.findall(r"Model name:\\s+(.+)\\n\\s*Model:\\s+(\\d+)\\n", shown)
    told[implementer] = [
        (int(part), name, arm.name(implementer, f"{int(part):#05x}")) for name, part in names
    ]
print(json.dumps(told))
"""


def test_processors_of_arm_have_the_names_that_lscpu_has_for_them(machine: Machine) -> None:
    told = json.loads(machine.run("python3", "-c", LSCPU, timeout=60).stdout)
    rows = [(implementer, *row) for implementer, rows in told.items() for row in rows]
    assert len(rows) == len(told) * 4096
    named = [row for row in rows if row[3] is not None]
    assert len(named) >= 120
    # '-' is a processor that is younger than this lscpu.
    wrong = [
        (implementer, hex(part), theirs, ours)
        for implementer, part, theirs, ours in named
        if theirs not in (ours, "-", RENAMED.get(implementer, {}).get(part))
    ]
    assert wrong == []
    # Of those of which Debian's arm64 runs, none is missing.
    missing = [row for row in rows if row[2].startswith(("Cortex-A", "Cortex-X", "Neoverse")) and not row[3]]
    assert missing == []


DUMPS = """
import sys
sys.path.insert(0, "/usr/share/rbee-hive")
import json, pathlib, subprocess, tarfile
from rbee.hive.devices.cpu import detect_cpu

def fields(told):
    for row in told:
        yield row["field"].rstrip(":"), row["data"]
        yield from fields(row.get("children", ()))

[source] = pathlib.Path("/srv/archive").glob("util-linux_*.orig.tar.*")
with tarfile.open(source) as tar:
    for member in tar.getmembers():
        if "/tests/ts/lscpu/dumps/" in member.name and member.name.endswith(".tar.gz"):
            with tarfile.open(fileobj=tar.extractfile(member)) as dump:
                dump.extractall("/run/dumps")
for root in sorted(pathlib.Path("/run/dumps").iterdir()):
    command = ["lscpu", "--json", "--sysroot", root]
    shown = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)["lscpu"]
    lscpu = {}
    for name, value in fields(shown):
        lscpu.setdefault(name, []).append(value)
    cpu, _ = detect_cpu(root)
    ours = [cpu.model, cpu.sockets, cpu.cores, cpu.threads]
    print(json.dumps({"name": root.name, "lscpu": lscpu, "ours": ours}))
"""


def test_processors_of_every_architecture_are_told_as_lscpu_tells_them_of_real_machines(
    machine: Machine,
) -> None:
    told = [json.loads(line) for line in machine.run("python3", "-c", DUMPS, timeout=60).stdout.splitlines()]
    names = {one["name"] for one in told}
    assert {"armv7", "ppc64-POWER7", "rv64-linux", "s390-lpar", "x86_64-64cpu"} <= names
    for one in told:
        (model, sockets, cores, threads), lscpu = one["ours"], one["lscpu"]
        one_kind = len(lscpu.get("Model name", ())) <= 1
        [name] = lscpu.get("Model name", ["-"]) if one_kind else ["-"]
        if "Machine type" in lscpu:
            assert model == f"IBM/S390, machine type {lscpu['Machine type'][0]}", one
        elif name not in ("-", None):  # or this lscpu does not know it
            assert model == " ".join(name.split()), one
        online = cpus_in(lscpu["On-line CPU(s) list"][0])
        assert threads == online, one
        assert cores is None or cores <= threads, one
        if one_kind and "Socket(s)" in lscpu and cores is not None:
            [there], [each] = lscpu["Socket(s)"], lscpu["Core(s) per socket"]
            assert cores == int(there) * int(each), one
            assert sockets in (int(there), None), one
    if "arm-A510-A710-A715-X3" in names:  # since util-linux 2.40
        [phone] = [one for one in told if one["name"] == "arm-A510-A710-A715-X3"]
        assert phone["ours"] == ["Cortex-A510 + Cortex-A715 + Cortex-A710 + Cortex-X3", 1, 8, 8]
        assert phone["lscpu"]["Socket(s)"] == ["1"] * 4


def cpus_in(ranges: str) -> int:
    ends = [part.partition("-") for part in ranges.split(",")]
    return sum(int(last or first) - int(first) + 1 for first, _, last in ends)


def test_a_machine_without_a_driver_has_no_cards_and_no_complaint(machine: Machine) -> None:
    add_hive(machine)
    assert "module-missing" not in findings(machine)
    assert gpus(machine) == []
