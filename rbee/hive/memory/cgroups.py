"""The processes and the memory of units, by their cgroups (version 2).

The hive does not see other users' processes in /proc (ProtectProc=invisible), but cgroups list their PIDs.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rbee.hive.devices.files import read_byte_count, read_text
from rbee.scope import SLICE, worker_of, worker_unit

FOLDERS_MAX = 4096
"""The most cgroups that are read in one pass."""

_UNIT = re.compile(r".+\.(service|scope|socket|mount|swap)")
_USER_SLICE = re.compile(r"user-([0-9]{1,10})\.slice")


class Usage(NamedTuple):
    """The RAM of a cgroup, in bytes.

    `held` is all of its memory, less the page cache that no process has mapped. Mapped files count, as an
    engine computes with a model that it has mapped. `mapped` is the part of `held` that is mapped files,
    which MemAvailable counts as available. `peak` is the most that was held, estimated: the highest usage of
    the cgroup (memory.peak, since Linux 5.19), less the page cache that is not mapped now.
    """

    held: int
    mapped: int
    peak: int


class Unit(NamedTuple):
    """A unit with a cgroup; `user` is None for a unit of the system."""

    name: str
    user: str | None
    folder: Path

    @property
    def worker_id(self) -> str | None:
        """The worker whose unit it is."""
        return worker_of(self.name)


class Cgroups:
    """Reads the cgroups below a filesystem root. Thread-safe; raises nothing."""

    def __init__(self, root: Path) -> None:
        self._top = root / "sys/fs/cgroup"

    def worker(self, worker_id: str) -> Path | None:
        """Return the cgroup folder of a worker's unit; None if it has no processes, and so no cgroup."""
        name = worker_unit(worker_id)
        usual = self._top / SLICE / name
        if usual.is_dir():
            return usual
        # An administrator's drop-in may have put it into another slice.
        return next((unit.folder for unit in self.units() if unit.name == name), None)

    def units(self) -> Iterator[Unit]:
        """Yield the units that have a cgroup. Those in a user manager or a container count as part of it."""
        left = FOLDERS_MAX
        waiting: list[tuple[Path, str | None]] = [(self._top, None)]
        while waiting and left > 0:
            folder, user = waiting.pop()
            for name in _folders_in(folder):
                left -= 1
                place = folder / name
                if _UNIT.fullmatch(name):
                    yield Unit(name, user, place)
                elif name.endswith(".slice"):
                    waiting.append((place, _user_of(name) or user))

    def owners(self) -> dict[int, Unit]:
        """Return the units by PID, of all processes that are in a unit."""
        return {pid: unit for unit in self.units() for pid in pids(unit.folder)}


def pids(folder: Path) -> set[int]:
    """Return the PIDs in a cgroup and its descendants."""
    found: set[int] = set()
    waiting = [folder]
    for _ in range(FOLDERS_MAX):
        if not waiting:
            break
        place = waiting.pop()
        found.update(int(line) for line in read_text(place / "cgroup.procs").split() if line.isdecimal())
        waiting += [place / name for name in _folders_in(place)]
    found.discard(0)  # a process of another PID namespace, cgroups(7)
    return found


def is_populated(folder: Path) -> bool:
    """Return whether a cgroup or a descendant has processes, dying ones included: they still hold memory."""
    return "populated 1" in read_text(folder / "cgroup.events") or bool(pids(folder))


def usage(folder: Path) -> Usage | None:
    """Return the RAM of a cgroup; None if it is gone, or if the kernel does not account its memory."""
    current = read_byte_count(folder / "memory.current")
    if current is None:
        return None
    mapped, unmapped = _page_cache(folder)
    held = max(0, current - unmapped)
    most = read_byte_count(folder / "memory.peak") or 0
    return Usage(held, mapped, max(held, most - unmapped))


def _page_cache(folder: Path) -> tuple[int, int]:
    """Return the bytes of the page cache that are mapped, and those that are not.

    file_mapped includes mapped tmpfs and shared memory, which active_file and inactive_file do not: with
    these a little too much counts as held.
    """
    text = read_text(folder / "memory.stat")
    stat = dict(re.findall(r"^(active_file|inactive_file|file_mapped) ([0-9]{1,16})$", text, re.MULTILINE))
    pages = int(stat.get("active_file", 0)) + int(stat.get("inactive_file", 0))
    mapped = min(int(stat.get("file_mapped", 0)), pages)
    return mapped, pages - mapped


def _user_of(slice_name: str) -> str | None:
    match = _USER_SLICE.fullmatch(slice_name)
    if match is None:
        return None
    try:
        return pwd.getpwuid(int(match[1])).pw_name
    except (KeyError, OverflowError):
        return match[1]


def _folders_in(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
