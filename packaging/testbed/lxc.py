"""Makes a machine a guest as LXC does: with limits, and /proc and /sys of lxcfs."""

from __future__ import annotations

from pathlib import Path

from testbed.cgroup import remove_cgroup
from testbed.debian import install_from_archive
from testbed.machine import Machine

LXCFS = """
set -e
# From here on what is mounted over /proc and /sys is the guest's alone: lxcfs reads the host's.
mount --make-rprivate /proc
mount --make-rprivate /sys
if test -n "$*"; then
    mount -t tmpfs none /sys/fs/cgroup
    for controller; do
        mkdir "/sys/fs/cgroup/$controller"
        mount -t cgroup -o "$controller" none "/sys/fs/cgroup/$controller"
    done
fi
exec lxcfs -f /var/lib/lxcfs
"""


class Limits:
    """The kernel's limits of one machine's memory and processors, set from outside of it.

    With a cgroup of version 1 if this computer has the controllers there, else with the machine's own.
    """

    def __init__(self) -> None:
        self.legacy: list[str] = []
        """The controllers that are version 1's."""
        self._made: list[Path] = []

    def hold(self, machine: Machine, *, memory_bytes: int, cpus: str) -> None:
        """Sets the limits; OSError if this computer has no such controller."""
        folders = {controller: _legacy_place(controller) for controller in ("memory", "cpuset")}
        for controller, folder in folders.items():
            if folder:
                self.legacy.append(controller)
                self._made.append(folder / machine.name)
                self._made[-1].mkdir()
        if memory := folders["memory"]:
            (memory / machine.name / "memory.limit_in_bytes").write_text(str(memory_bytes))
        else:
            (machine.cgroup.path / "memory.max").write_text(str(memory_bytes))
        if cpuset := folders["cpuset"]:
            (cpuset / machine.name / "cpuset.mems").write_text((cpuset / "cpuset.mems").read_text())
            (cpuset / machine.name / "cpuset.cpus").write_text(cpus)
        else:
            (machine.cgroup.path / "cpuset.cpus").write_text(cpus)
        for made in self._made:
            (made / "cgroup.procs").write_text(str(machine.leader))

    def remove(self) -> None:
        """Removes the cgroups, once the machine has ended."""
        for folder in self._made:
            remove_cgroup(folder)


def _legacy_place(controller: str) -> Path | None:
    """The folder of our own cgroup in that controller's hierarchy of version 1, if it has one."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, place = line.split(":", 2)
        if controller in controllers.split(","):
            return Path("/sys/fs/cgroup") / controllers / place.lstrip("/")
    return None


def become_guest(machine: Machine, limits: Limits) -> None:
    """Debian's lxcfs, mounted over /proc and /sys by its own hook, as LXC runs it for a guest."""
    install_from_archive(machine, "lxcfs")
    machine.run(
        *("systemd-run", "--quiet", "--unit=lxcfs-of-the-host"),
        *("unshare", "--mount", "--propagation", "unchanged", "sh", "-c", LXCFS, "sh", *limits.legacy),
    )
    machine.run("sh", "-c", "until test -e /var/lib/lxcfs/proc/meminfo; do sleep 0.02; done")
    # LXC_CGNS_AWARE: with a namespace of cgroups the hook does nothing with /sys/fs/cgroup.
    machine.run("sh", "/usr/share/lxcfs/lxc.mount.hook", env={"LXC_ROOTFS_MOUNT": "/", "LXC_CGNS_AWARE": "1"})


def ask_guest(machine: Machine, *argv: str) -> str:
    """The output of a command that the guest's systemd starts; one started from outside sees the host's."""
    return machine.run("systemd-run", "--quiet", "--pipe", "--wait", *argv).stdout
