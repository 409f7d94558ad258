"""How much of the machine's processors and memory this guest may have, by the kernel's cgroups.

What counts are the limits of the cgroup namespace's root and of those cgroups between it and the hive's
own, such as rbee.slice. MemoryMax= and CPUQuota= of the hive's own unit are for the daemon, and say nothing
of what else runs here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from rbee.hive.devices.files import cpu_numbers, read_text

_UNIT = re.compile(r".+\.(service|scope)")


class Limits(NamedTuple):
    """None where nothing is limited. CPUs as the kernel gives out their time: 1.5 is one and a half."""

    cpus: float | None
    ram_bytes: int | None


def limits(root: Path) -> Limits:
    """Return the lowest limits of the cgroups under `root`, of both versions; raises nothing."""
    cpus: list[float] = []
    memory: list[int] = []
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, place = [*line.split(":", 2), "", ""][:3]
        for folder in _folders(root, controllers, place):
            cpus += _cpus(folder)
            memory += _memory(folder)
    return Limits(min(cpus, default=None), min(memory, default=None))


def memory_folders(root: Path) -> Iterator[Path]:
    """Yield the cgroups whose limit of memory counts here, as limits() has them."""
    for line in read_text(root / "proc/self/cgroup").splitlines():
        _, controllers, place = [*line.split(":", 2), "", ""][:3]
        if controllers in ("", "memory"):
            yield from _folders(root, controllers, place)


def memory_limit(folder: Path) -> int | None:
    """Return the bytes that a cgroup may have; None if it has no limit of its own."""
    return min(_memory(folder), default=None)


def _folders(root: Path, controllers: str, place: str) -> Iterator[Path]:
    """Yield the namespace's root and the cgroups between it and the hive's unit.

    `place` may not exist below the mount: a guest without a namespace of its own sees the host's path,
    and its own cgroup mounted as the root.
    """
    mounts = [root / "sys/fs/cgroup" / name for name in (controllers.split(",") if controllers else [""])]
    inside = PurePosixPath(place)
    if _UNIT.fullmatch(inside.name):
        inside = inside.parent
    # The place of a process that came from outside of the namespace begins with /..
    names = () if ".." in inside.parts else inside.parts[1:]
    for mount in mounts:
        for depth in range(len(names) + 1):
            yield mount.joinpath(*names[:depth])


def _memory(folder: Path) -> list[int]:
    """Bytes. Unlimited is 'max' in version 2, and in version 1 more than any machine has."""
    texts = (read_text(folder / name).strip() for name in ("memory.max", "memory.limit_in_bytes"))
    return [int(text) for text in texts if re.fullmatch("[0-9]{1,19}", text)]


def _cpus(folder: Path) -> list[float]:
    """By time, and by number: cpu.max and cpuset.cpus.effective, and what version 1 calls these."""
    found: list[float] = []
    quotas = (
        read_text(folder / "cpu.max"),
        f"{read_text(folder / 'cpu.cfs_quota_us').strip()} {read_text(folder / 'cpu.cfs_period_us')}",
    )
    for quota in quotas:
        if match := re.fullmatch(r"([0-9]{1,15}) ([1-9][0-9]{0,14})", quota.strip()):
            found.append(round(int(match[1]) / int(match[2]), 2))
    for name in ("cpuset.cpus.effective", "cpuset.effective_cpus"):
        if allowed := cpu_numbers(read_text(folder / name)):
            found.append(len(allowed))
    return found
