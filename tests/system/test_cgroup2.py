"""Limits by cgroups of version 2, of a kernel of its own: this computer may have those of version 1."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testbed.emulated import UserModeMachine
from testbed.trees import Trees

from tests.system.commands import HIVE, add_hive, await_told, configure, rbeectl

MIB = 2**20

GUEST = """
import sys
sys.path.insert(0, "/usr/share/rbee-hive")
import json
from pathlib import Path
from rbee.hive.devices.cpu import detect_cpu

cpu, _ = detect_cpu(Path("/"))
print(json.dumps([Path("/proc/self/cgroup").read_text(), cpu.cpus_allowed, cpu.ram_allowed_bytes]))
"""


@pytest.fixture
def machine(suite: str, trees: Trees, debs: list[Path]) -> Iterator[UserModeMachine]:
    with UserModeMachine(trees.installed(suite, debs)) as machine:
        yield machine


def cpu_of(machine: UserModeMachine) -> dict[str, Any]:
    [hive] = rbeectl(machine, "list-devices", "--json").json["hives"]
    found: dict[str, Any] = hive["devices"]["cpu"]
    return found


def limit(machine: UserModeMachine, slice_name: str, *properties: str) -> None:
    machine.run("systemctl", "set-property", "--runtime", slice_name, *properties)


def memory_max(machine: UserModeMachine, unit: str) -> int:
    """What systemd shows of it, which the kernel's file says, too."""
    shown = machine.run("systemctl", "show", "--property=MemoryMax,ControlGroup", unit).stdout
    properties = dict(line.split("=", 1) for line in shown.splitlines())
    file = machine.run("cat", f"/sys/fs/cgroup{properties['ControlGroup']}/memory.max").stdout
    assert file == f"{properties['MemoryMax']}\n"
    return int(file)


def test_what_systemd_limits_by_cgroups_of_version_2_is_what_the_hive_reports(
    machine: UserModeMachine,
) -> None:
    controllers = machine.run("cat", "/sys/fs/cgroup/cgroup.controllers").stdout.split()
    assert {"cpu", "memory"} <= set(controllers)
    meminfo = machine.run("cat", "/proc/meminfo").stdout
    whole = int(re.findall(r"MemTotal: +(\d+) kB", meminfo)[0]) * 1024
    configure(machine, "[Queen]\nHeartbeatIntervalSec=1s\n")

    # The unit's own limit is the daemon's, and not the machine's.
    add_hive(machine)
    assert memory_max(machine, HIVE) == 512 * MIB
    cpu = cpu_of(machine)
    assert (cpu["ram_bytes"], cpu["threads"]) == (whole, 1)
    assert (cpu["ram_allowed_bytes"], cpu["cpus_allowed"]) == (None, None)

    # One at a time, as the hive may look between two.
    limit(machine, "rbee.slice", "MemoryMax=400M")
    told = await_told(machine, "devices-changed")
    assert told == "the devices of the beehive localhost have changed: limit of RAM none -> 0.4 GiB"
    limit(machine, "rbee.slice", "CPUQuota=90%")
    told = await_told(machine, "devices-changed", 2)
    assert told == "the devices of the beehive localhost have changed: limit of CPUs none -> 0.9"
    cpu = cpu_of(machine)
    assert (cpu["ram_allowed_bytes"], cpu["cpus_allowed"]) == (memory_max(machine, "rbee.slice"), 0.9)
    assert machine.run("cat", "/sys/fs/cgroup/rbee.slice/cpu.max").stdout == "90000 100000\n"
    assert "; limited to 0.9)" in rbeectl(machine, "list-devices").out

    limit(machine, "rbee.slice", "CPUQuota=")
    told = await_told(machine, "devices-changed", 3)
    assert told == "the devices of the beehive localhost have changed: limit of CPUs 0.9 -> none"
    cpu = cpu_of(machine)
    assert (cpu["ram_allowed_bytes"], cpu["cpus_allowed"]) == (400 * MIB, None)


def test_in_a_container_the_limits_of_the_container_count(machine: UserModeMachine) -> None:
    """Its cgroup is the root of its namespace, and has the files that no real root has."""
    limit(machine, "containers.slice", "MemoryMax=300M", "CPUQuota=75%")

    def inside(*options: str) -> Any:
        guest = machine.run(
            *("systemd-run", "--quiet", "--pipe", "--wait", "--slice=containers.slice", *options),
            *("unshare", "--cgroup", "--mount", "--", "sh", "-ec"),
            'umount --lazy /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec python3 -c "$0"', GUEST,
        )  # fmt: skip
        return json.loads(guest.stdout)

    assert inside("--property=MemoryMax=200M", "--property=CPUQuota=30%") == ["0::/\n", 0.3, 200 * MIB]
    # Of its host's cgroups, and so of the slice, a container sees nothing.
    assert inside() == ["0::/\n", None, None]
