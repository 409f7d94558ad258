"""A guest that LXC would have made: what the hive reports is the guest's, not the host's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from testbed.debian import ARCHIVE_INSIDE
from testbed.lxc import Limits, ask_guest, become_guest
from testbed.machine import Machine
from testbed.trees import Trees

from tests.system.commands import add_hive, rbeectl

GIB = 2**30


@pytest.fixture
def limits() -> Iterator[Limits]:
    """Taken away once the machine, which is asked for after it, is gone."""
    limits = Limits()
    yield limits
    limits.remove()


@pytest.fixture
def limited(limits: Limits, suite: str, trees: Trees, debs: list[Path]) -> Iterator[Machine]:
    """A machine of 2 GiB and one CPU on a computer that has more of both; it may mount by FUSE."""
    archive = f"{trees.archive(suite)}:{ARCHIVE_INSIDE}"
    with Machine(trees.installed(suite, debs), bind=["/dev/fuse"], bind_ro=[archive]) as machine:
        limits.hold(machine, memory_bytes=2 * GIB, cpus="0")
        yield machine


def cpu_of(machine: Machine) -> dict[str, Any]:
    [hive] = rbeectl(machine, "list-devices", "--json").json["hives"]
    found: dict[str, Any] = hive["devices"]["cpu"]
    return found


def test_under_lxcfs_the_hive_reports_the_memory_and_processors_of_the_guest(
    limited: Machine, limits: Limits
) -> None:
    become_guest(limited, limits)
    free = ask_guest(limited, "free", "-b")
    cpuinfo = ask_guest(limited, "cat", "/proc/cpuinfo")
    assert re.search(rf"^Mem: +{2 * GIB} ", free, re.MULTILINE), "lxcfs does its work"
    added = add_hive(limited)
    assert ", 2.0 GiB RAM)" in added.out
    cpu = cpu_of(limited)
    assert cpu["ram_bytes"] == 2 * GIB
    # lxcfs 5 tells of one CPU; 6 knows no cpuset of version 1, and tells of the host's.
    assert cpu["threads"] == len(re.findall(r"^processor", cpuinfo, re.MULTILINE))
    assert 1 <= cpu["sockets"] <= cpu["cores"] <= cpu["threads"]
    live = rbeectl(limited, "show", "localhost", "--json").json["sample"]
    assert live["memory_total_bytes"] == 2 * GIB
    assert live["memory_used_bytes"] < GIB


def test_what_the_cgroup_of_a_guest_allows_is_said_beside_what_the_machine_has(
    limited: Machine, limits: Limits
) -> None:
    for controller in limits.legacy:
        # Where a guest with cgroups of version 1 has them; those of version 2 are there.
        place = f"/sys/fs/cgroup/{controller}"
        limited.run("mkdir", place)
        limited.run("mount", "-t", "cgroup", "-o", controller, "none", place)
    whole = int(re.findall(r"MemTotal: +(\d+) kB", Path("/proc/meminfo").read_text())[0]) * 1024
    threads = int(limited.run("nproc", "--all").stdout)
    added = add_hive(limited)
    cpu = cpu_of(limited)
    assert (cpu["ram_bytes"], cpu["ram_allowed_bytes"]) == (whole, 2 * GIB)
    assert (cpu["threads"], cpu["cpus_allowed"]) == (threads, 1)
    assert f"{whole / GIB:.1f} GiB RAM, limited to 1 CPU and 2.0 GiB)" in added.out
    table = rbeectl(limited, "list-devices").out
    assert "; limited to 1)" in table
    assert f"2.0 of {whole / GIB:.1f} GiB  " in table
    shown = rbeectl(limited, "show", "localhost").lines
    assert {f"MemoryTotal={whole}", f"MemoryAllowed={2 * GIB}", "CPUsAllowed=1"} <= set(shown)
    metrics = rbeectl(limited, "metrics").out
    assert f'rbee_hive_memory_allowed_bytes{{hive="localhost"}} {2 * GIB / 1e9:.9f}e+09' in metrics
    assert 'rbee_hive_cpus_allowed{hive="localhost"} 1.0' in metrics
