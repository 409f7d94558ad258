"""What a unit in a machine uses: CPU time by its cgroup, memory by its main process."""

from __future__ import annotations

from testbed.machine import Machine

QUEEN = "queen-rbee.service"
HIVE = "rbee-hive.service"


def pid_of(machine: Machine, unit: str) -> str:
    """Return the ID of a unit's main process, in the machine; '0' without one."""
    return machine.run("systemctl", "show", "-P", "MainPID", unit).stdout.strip()


def cpu_us(machine: Machine, unit: str) -> int:
    """Return the CPU time of a running unit, user's and system's, in µs."""
    script = 'cat "/sys/fs/cgroup$(systemctl show -P ControlGroup "$0")/cpu.stat"'
    lines = machine.run("sh", "-c", script, unit).stdout.splitlines()
    return int(dict(line.split() for line in lines)["usage_usec"])


def pss_mib(machine: Machine, unit: str) -> float:
    """Return the memory (PSS) of a unit's main process in MiB: its own, and its part of what it shares."""
    script = "awk '/^Pss:/ {print $2}' \"/proc/$0/smaps_rollup\""
    return int(machine.run("sh", "-c", script, pid_of(machine, unit)).stdout) / 1024
