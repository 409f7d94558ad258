"""The CPU of this machine, beside what other programs report of it, and that of another root."""

from __future__ import annotations

import subprocess
from pathlib import Path

from rbee.hive.devices.cpu import detect_cpu
from tests.unit.hive.devices.machine import Machine


def test_free_and_lscpu_tell_the_same_of_this_machine() -> None:
    def told(*argv: str) -> str:
        return subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=True).stdout

    cpu, findings = detect_cpu(Path("/"))
    rows = [row.split(",") for row in told("lscpu", "--parse=CPU,CORE,SOCKET").splitlines() if row[0] != "#"]
    threads, cores, sockets = (len(set(column)) for column in zip(*rows, strict=True))
    assert (cpu.sockets, cpu.cores, cpu.threads) == (sockets, cores, threads)
    assert cpu.ram_bytes == int(told("free", "--bytes").splitlines()[1].split()[1])
    assert findings == []


def test_the_cpu_of_a_root_is_read_from_its_own_proc(machine: Machine) -> None:
    cpu = machine.detect().cpu
    assert cpu.model == "AMD EPYC 9354 32-Core Processor"
    assert (cpu.sockets, cpu.cores, cpu.threads, cpu.ram_bytes) == (2, 4, 8, 16 * 2**20)
