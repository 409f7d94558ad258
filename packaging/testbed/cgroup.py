"""Cgroups of machines."""

import os
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from testbed.host import MachineError, why_not

CPU_SHARES_MAX = 262144
"""What the kernel takes at most; a group has 1024 by default. See sched(7)."""

RT_RUNTIME_US = 50_000
"""Microseconds of each second, on each processor; all groups together have 950,000."""


class Cgroup:
    """A cgroup for one machine: with --keep-unit they would otherwise share one, units included."""

    def __init__(self, name: str) -> None:
        self._hierarchies = cgroup_mounts()
        self._place = _our_cgroup(self._hierarchies[0]) / name
        self.path = self._hierarchies[0] / self._place

    def make(self) -> None:
        """Makes the cgroup."""
        self.path.mkdir()

    def freeze(self, is_frozen: bool) -> None:
        """Freezes or thaws all processes in it; MachineError after 5 s."""
        (self.path / "cgroup.freeze").write_text(f"{is_frozen:d}")
        deadline = time.monotonic() + 5
        while f"frozen {is_frozen:d}" not in (self.path / "cgroup.events").read_text():
            if time.monotonic() > deadline:
                raise MachineError(f"{self.path} is not {'frozen' if is_frozen else 'thawed'} after 5 s")
            time.sleep(0.005)

    def put_first(self) -> None:
        """Gives its processes, and those that they start, the processors before all others of this computer.

        For what is timed while other machines run. It lasts until the machine ends, and takes a computer with
        the legacy hierarchy of the controller cpu; on another one all go on as equals.
        """
        if not (mount := _legacy_mount("cpu")):
            return
        group = mount / self._place
        group.mkdir(exist_ok=True)
        (group / "cpu.shares").write_text(str(CPU_SHARES_MAX))
        # For polkit, see debian.py: without its share a group may have no process in the real-time class.
        if (limit := group / "cpu.rt_runtime_us").exists():
            limit.write_text(str(RT_RUNTIME_US))
        for processes in self.path.rglob("cgroup.procs"):
            for pid in processes.read_text().split():
                with suppress(ProcessLookupError):  # it has ended
                    (group / "cgroup.procs").write_text(pid)

    def remove(self) -> None:
        """Removes the cgroup and those in it."""
        # systemd-nspawn makes the same place in systemd's legacy hierarchy, where there is one.
        for hierarchy in self._hierarchies:
            for directory, _, _ in os.walk(hierarchy / self._place, topdown=False):
                remove_cgroup(Path(directory))


def remove_cgroup(path: Path) -> None:
    """Removes a cgroup as soon as its processes have gone, if it is there; OSError after 5 s."""
    deadline = time.monotonic() + 5
    while True:
        try:
            path.rmdir()
            return
        except FileNotFoundError:
            return  # another run may have removed it meanwhile
        except OSError:
            # Busy for a moment after its last process has gone; nothing signals the end of that.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _our_cgroup(mount: Path) -> Path:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        place = Path(line.removeprefix("0::/"))
        if line.startswith("0::/") and ".." not in place.parts and (mount / place).is_dir():
            return place
    return Path()


def cgroup_mounts() -> list[Path]:
    """Where cgroup2 is mounted, then the legacy hierarchies of systemd and of the controller cpu, if any."""
    unified = next((mount for mount, kind, _ in _mounts() if kind == "cgroup2"), None)
    if not unified:
        raise MachineError(why_not() or "No cgroup2 is mounted")
    legacy = _legacy_mount("name=systemd"), _legacy_mount("cpu")
    return [unified, *(mount for mount in legacy if mount)]


def _legacy_mount(controller: str) -> Path | None:
    return next((mount for mount, kind, has in _mounts() if kind == "cgroup" and controller in has), None)


def _mounts() -> Iterator[tuple[Path, str, list[str]]]:
    """Where each file system is mounted, its type, and its options."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, kind = line.partition(" - ")
        yield Path(mount.split()[4]), kind.split()[0], kind.split()[-1].split(",")
