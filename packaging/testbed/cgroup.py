"""Cgroups of machines."""

import os
import time
from pathlib import Path

from testbed.host import MachineError, why_not


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
    """Where cgroup2 is mounted, then where systemd's own legacy hierarchy is, if at all."""
    unified, legacy = [], []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            unified.append(Path(mount.split()[4]))
        elif kind.startswith("cgroup ") and "name=systemd" in kind.split()[-1].split(","):
            legacy.append(Path(mount.split()[4]))
    if not unified:
        raise MachineError(why_not() or "No cgroup2 is mounted")
    return unified[:1] + legacy[:1]
