"""RAM: of the machine, within limits, and by unit."""

from __future__ import annotations

from pathlib import Path

from rbee.hive.memory.cgroups import Cgroups
from rbee.hive.memory.ram import UNITS_LISTED, read_ram
from rbee.wire.workers import Holder

MIB = 2**20


def machine(root: Path, total: int, available: int, place: str = "/rbee.slice/rbee-hive.service") -> None:
    (root / "proc/self").mkdir(parents=True)
    lines = f"MemTotal: {total // 1024} kB\nMemAvailable: {available // 1024} kB\n"
    (root / "proc/meminfo").write_text(lines)
    (root / "proc/self/cgroup").write_text(f"0::{place}\n")


def cgroup(
    root: Path, place: str, *, current: int | None = None, limit: object = None, stat: str = ""
) -> Path:
    folder = root / "sys/fs/cgroup" / place
    folder.mkdir(parents=True, exist_ok=True)
    files = {"memory.current": current, "memory.max": limit, "memory.stat": stat}
    for name, content in files.items():
        if content is not None:
            (folder / name).write_text(f"{content}\n")
    return folder


def test_free_is_what_the_kernel_has_available(tmp_path: Path) -> None:
    machine(tmp_path, 1000 * MIB, 600 * MIB)
    reading = read_ram(tmp_path, Cgroups(tmp_path), {})
    assert (reading.id, reading.total, reading.free, reading.problem) == ("ram", 1000 * MIB, 600 * MIB, None)


def test_mapped_files_of_workers_are_not_free(tmp_path: Path) -> None:
    machine(tmp_path, 1000 * MIB, 600 * MIB)
    stat = f"active_file {200 * MIB}\ninactive_file 0\nfile_mapped {150 * MIB}"
    worker = cgroup(tmp_path, "rbee.slice/rbee-worker@bee-1.service", current=300 * MIB, stat=stat)
    reading = read_ram(tmp_path, Cgroups(tmp_path), {"bee-1": worker})
    assert (reading.free, dict(reading.held)) == (450 * MIB, {"bee-1": 250 * MIB})
    assert reading.others == ()


def test_a_limit_of_the_slice_counts_with_what_is_used_of_it(tmp_path: Path) -> None:
    machine(tmp_path, 1000 * MIB, 600 * MIB)
    cache = f"active_file {50 * MIB}\ninactive_file 0\nfile_mapped 0"
    cgroup(tmp_path, "rbee.slice", current=250 * MIB, limit=400 * MIB, stat=cache)
    reading = read_ram(tmp_path, Cgroups(tmp_path), {})
    assert (reading.total, reading.free) == (400 * MIB, 200 * MIB)


def test_a_limit_of_the_daemon_s_own_unit_does_not_count(tmp_path: Path) -> None:
    machine(tmp_path, 1000 * MIB, 600 * MIB)
    cgroup(tmp_path, "rbee.slice/rbee-hive.service", current=MIB, limit=512 * MIB)
    cgroup(tmp_path, "rbee.slice", current=MIB, limit="max")
    assert read_ram(tmp_path, Cgroups(tmp_path), {}).total == 1000 * MIB


def test_a_guest_s_limit_by_cgroups_of_version_1_counts(tmp_path: Path) -> None:
    machine(tmp_path, 1000 * MIB, 600 * MIB)
    (tmp_path / "proc/self/cgroup").write_text("4:memory:/\n0::/\n")
    folder = cgroup(tmp_path, "memory")
    (folder / "memory.limit_in_bytes").write_text(f"{500 * MIB}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{100 * MIB}\n")
    reading = read_ram(tmp_path, Cgroups(tmp_path), {})
    assert (reading.total, reading.free) == (500 * MIB, 400 * MIB)


def test_the_units_that_hold_most_are_listed_with_their_users(tmp_path: Path) -> None:
    machine(tmp_path, 1000 * MIB, 100 * MIB)
    for number in range(UNITS_LISTED + 3):
        cgroup(tmp_path, f"system.slice/s{number}.service", current=(20 + number) * MIB)
    cgroup(tmp_path, "system.slice/small.service", current=9 * MIB)
    cgroup(tmp_path, "user.slice/user-4000000000.slice/session-1.scope", current=300 * MIB)
    reading = read_ram(tmp_path, Cgroups(tmp_path), {})
    assert len(reading.others) == UNITS_LISTED
    assert reading.others[0] == Holder("process", 300 * MIB, "session-1.scope", "4000000000")
    assert reading.others[1] == Holder("process", 32 * MIB, "s12.service")


def test_where_the_kernel_does_not_count_a_cgroup_s_memory_what_a_worker_holds_is_unknown(
    tmp_path: Path,
) -> None:
    machine(tmp_path, 1000 * MIB, 600 * MIB)
    worker = cgroup(tmp_path, "rbee.slice/rbee-worker@bee-1.service")
    reading = read_ram(tmp_path, Cgroups(tmp_path), {"bee-1": worker})
    assert (reading.free, dict(reading.held)) == (600 * MIB, {"bee-1": None})


def test_a_machine_without_meminfo_is_unknown(tmp_path: Path) -> None:
    reading = read_ram(tmp_path, Cgroups(tmp_path), {})
    assert (reading.total, reading.free) == (None, None)
    assert reading.problem == "/proc/meminfo does not report MemTotal and MemAvailable"


def test_this_machine_has_ram() -> None:
    reading = read_ram(Path("/"), Cgroups(Path("/")), {})
    assert reading.total is not None
    assert reading.free is not None
    assert 0 < reading.free <= reading.total
