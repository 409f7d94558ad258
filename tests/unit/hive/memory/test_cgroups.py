"""Units, their processes and their memory, in trees as the kernel shows them."""

from __future__ import annotations

import os
from pathlib import Path

from rbee.hive.memory.cgroups import Cgroups, Usage, is_populated, pids, usage

MIB = 2**20


def write(root: Path, place: str, **files: object) -> Path:
    """`files` by their name, with two underscores for a dot."""
    folder = root / "sys/fs/cgroup" / place
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")
    return folder


def test_a_process_belongs_to_the_unit_that_its_cgroup_is_in(tmp_path: Path) -> None:
    write(tmp_path, "system.slice/ollama.service", cgroup__procs="11\n12")
    write(tmp_path, "system.slice/docker-1f2e.scope/inner", cgroup__procs="13")
    uid = os.getuid()
    write(tmp_path, f"user.slice/user-{uid}.slice/session-3.scope", cgroup__procs="14")
    write(tmp_path, "user.slice/user-4000000000.slice/user@4000000000.service/app.slice/x.service")
    write(tmp_path, "rbee.slice/rbee-worker@bee-1.service", cgroup__procs="15\n0")

    owners = Cgroups(tmp_path).owners()
    assert {pid: unit.name for pid, unit in owners.items()} == {
        11: "ollama.service",
        12: "ollama.service",
        13: "docker-1f2e.scope",
        14: "session-3.scope",
        15: "rbee-worker@bee-1.service",
    }
    assert owners[11].user is None
    assert owners[14].user is not None
    assert (owners[14].worker_id, owners[15].worker_id) == (None, "bee-1")
    users = {unit.name: unit.user for unit in Cgroups(tmp_path).units()}
    assert users["user@4000000000.service"] == "4000000000"


def test_a_worker_is_found_in_any_slice(tmp_path: Path) -> None:
    cgroups = Cgroups(tmp_path)
    assert cgroups.worker("bee-1") is None
    elsewhere = write(tmp_path, "big.slice/big-models.slice/rbee-worker@bee-1.service")
    assert cgroups.worker("bee-1") == elsewhere
    usual = write(tmp_path, "rbee.slice/rbee-worker@bee-1.service")
    assert cgroups.worker("bee-1") == usual
    assert cgroups.worker("bee-2") is None


def test_pages_of_files_count_as_held_only_while_they_are_mapped(tmp_path: Path) -> None:
    stat = f"anon {MIB}\nactive_file {60 * MIB}\ninactive_file {40 * MIB}\nfile_mapped {30 * MIB}"
    folder = write(tmp_path, "w", memory__current=110 * MIB, memory__stat=stat, memory__peak=150 * MIB)
    assert usage(folder) == Usage(held=40 * MIB, mapped=30 * MIB, peak=80 * MIB)


def test_a_kernel_without_a_peak_has_what_is_held_now(tmp_path: Path) -> None:
    folder = write(tmp_path, "w", memory__current=MIB, memory__stat="")
    assert usage(folder) == Usage(MIB, 0, MIB)


def test_shared_memory_that_is_mapped_is_no_page_cache(tmp_path: Path) -> None:
    stat = f"active_file 0\ninactive_file {MIB}\nfile_mapped {50 * MIB}"
    folder = write(tmp_path, "w", memory__current=60 * MIB, memory__stat=stat)
    assert usage(folder) == Usage(60 * MIB, MIB, 60 * MIB)


def test_without_the_memory_controller_nothing_is_known(tmp_path: Path) -> None:
    assert usage(write(tmp_path, "w", cgroup__procs=1)) is None
    assert usage(tmp_path / "gone") is None
    assert pids(tmp_path / "gone") == set()
    assert not is_populated(tmp_path / "gone")


def test_a_cgroup_whose_processes_are_dying_is_populated(tmp_path: Path) -> None:
    """cgroup.procs has no zombies, and the kernel says populated until the last is through."""
    folder = write(tmp_path, "w", cgroup__procs="", cgroup__events="populated 1\nfrozen 0")
    assert is_populated(folder)
    write(tmp_path, "w", cgroup__events="populated 0\nfrozen 0")
    assert not is_populated(folder)
