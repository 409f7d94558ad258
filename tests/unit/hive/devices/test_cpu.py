"""The CPU and the RAM of roots that were made from what real machines tell, and of this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.hive.devices.cpu import detect_cpu

X86 = "processor : {n}\nmodel name : Intel(R) Xeon(R) Gold 6130\nphysical id : {package}\ncore id : {core}\n"
ARM = (
    "processor\t: {n}\nCPU implementer\t: 0x41\nCPU architecture: 8\nCPU part\t: {part}\nCPU revision\t: 0\n"
)
POWER = "processor\t: 0\ncpu\t\t: POWER9 (architected), altivec supported\nrevision\t: 2.2 (pvr 004e 1202)\n"
RISCV = "processor\t: 0\nhart\t\t: 1\nisa\t\t: rv64imafdc\nmmu\t\t: sv39\nuarch\t\t: sifive,u74-mc\n"
MAINFRAME = """vendor_id       : IBM/S390
# processors    : 2
bogomips per cpu: 3033.00
max thread id   : 0
processor 0: version = FF,  identification = 2733E8,  machine = 2964
processor 1: version = FF,  identification = 2733E8,  machine = 2964

cpu number      : 0
cpu MHz dynamic : 5000

cpu number      : 1
cpu MHz dynamic : 5000
"""
LOONGARCH = """system type\t\t: generic-loongson-machine

processor\t\t: 0
package\t\t\t: 0
core\t\t\t: 0
CPU Family\t\t: Loongson-64bit
Model Name\t\t: Loongson-3A6000-HV

processor\t\t: 1
package\t\t\t: 0
core\t\t\t: 0
CPU Family\t\t: Loongson-64bit
Model Name\t\t: Loongson-3A6000-HV
"""


def write(root: Path, path: str, content: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(content)


def write_topology(root: Path, *cores: tuple[str, str], online: str | None = None) -> None:
    """The package and the siblings of each CPU."""
    for number, (package, siblings) in enumerate(cores):
        topology = f"sys/devices/system/cpu/cpu{number}/topology"
        write(root, f"{topology}/physical_package_id", f"{package}\n")
        write(root, f"{topology}/core_cpus_list", f"{siblings}\n")
    write(root, "sys/devices/system/cpu/online", f"{online or f'0-{len(cores) - 1}'}\n")


def shape(root: Path) -> tuple[int | None, int | None, int | None]:
    cpu, _ = detect_cpu(root)
    return cpu.sockets, cpu.cores, cpu.threads


@pytest.mark.parametrize(
    ("cpuinfo", "model", "threads"),
    [
        pytest.param("\n".join(ARM.format(n=n, part="0xd0c") for n in (0, 1)), "Neoverse-N1", 2, id="altra"),
        pytest.param(
            "\n".join(ARM.format(n=n, part=part) for n, part in enumerate(("0xd05", "0xd05", "0xd0b"))),
            "Cortex-A55 + Cortex-A76", 3, id="rk3588",
        ),
        pytest.param(ARM.format(n=0, part="0x123"), None, 1, id="arm-that-nobody-knows"),
        pytest.param("processor\t: 0\nCPU implementer\t: 0x41\n", None, 1, id="arm-without-part"),
        pytest.param(POWER, "POWER9 (architected), altivec supported", 1, id="power"),
        pytest.param(RISCV, "sifive,u74-mc", 1, id="risc-v"),
        pytest.param("processor\t: 0\nhart\t\t: 0\nisa\t\t: rv64imafdch\n", None, 1, id="risc-v-qemu"),
        pytest.param(MAINFRAME, "IBM/S390, machine type 2964", 2, id="s390x"),
        pytest.param(LOONGARCH, "Loongson-3A6000-HV", 2, id="loongarch"),
        pytest.param(LOONGARCH.lower(), "loongson-3a6000-hv", 2, id="loongarch-before-linux-6.1"),
    ],
)  # fmt: skip
def test_each_architecture_names_its_processor(
    tmp_path: Path, cpuinfo: str, model: str | None, threads: int
) -> None:
    write(tmp_path, "proc/cpuinfo", cpuinfo)
    write(tmp_path, "proc/meminfo", "MemTotal:       1024 kB\n")
    cpu, findings = detect_cpu(tmp_path)
    assert (cpu.model, cpu.threads) == (model, threads)
    assert findings == []


def test_sockets_cores_and_threads_are_those_of_the_cpus_that_are_online(tmp_path: Path) -> None:
    cpuinfo = "\n".join(X86.format(n=n, package=n // 4, core=n % 4 // 2) for n in (0, 1, 2))
    write(tmp_path, "proc/cpuinfo", cpuinfo)
    # The four of the second package are off, and a sibling of the first; sysfs has their folders still.
    write_topology(tmp_path, *((str(n // 4), f"{n - n % 2}-{n - n % 2 + 1}") for n in range(8)), online="0-2")
    assert shape(tmp_path) == (1, 2, 3)


def test_a_guest_of_which_only_cpuinfo_tells_has_no_more_cores_than_threads(tmp_path: Path) -> None:
    # lxcfs numbers what the guest may use anew, and the host's sysfs shows through.
    write(
        tmp_path,
        "proc/cpuinfo",
        "\n".join(X86.format(n=n, package=0, core=core) for n, core in ((0, 3), (1, 6))),
    )
    write_topology(tmp_path, *(("0", str(n)) for n in range(8)))
    assert shape(tmp_path) == (1, 2, 2)


def test_a_guest_whose_cpuinfo_names_no_cores_has_an_unknown_number_of_them(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", "\n".join(ARM.format(n=n, part="0xd0c") for n in (0, 1)))
    write_topology(tmp_path, *(("0", str(n)) for n in range(8)))
    assert shape(tmp_path) == (None, None, 2)


def test_cores_that_share_a_number_in_their_package_are_two(tmp_path: Path) -> None:
    # AMD's of family 15h count from 0 on in each half of a package.
    write(tmp_path, "proc/cpuinfo", "\n".join(X86.format(n=n, package=0, core=0) for n in (0, 1)))
    write_topology(tmp_path, ("0", "0"), ("0", "1"))
    assert shape(tmp_path) == (1, 2, 2)


def test_a_package_that_firmware_did_not_tell_of_is_no_socket(tmp_path: Path) -> None:
    write_topology(tmp_path, ("0", "0"), ("0", "1"), ("-1", "2"))
    assert shape(tmp_path) == (1, 3, 3)


@pytest.mark.parametrize("meminfo", [None, "", "MemTotal:\n", f"MemTotal: {'9' * 5000} kB\n"])
def test_a_proc_that_tells_nothing_is_a_finding(tmp_path: Path, meminfo: str | None) -> None:
    if meminfo is not None:
        write(tmp_path, "proc/meminfo", meminfo)
        write(tmp_path, "proc/cpuinfo", meminfo)
    cpu, findings = detect_cpu(tmp_path)
    assert (cpu.model, cpu.sockets, cpu.cores, cpu.threads, cpu.ram_bytes) == (None,) * 5
    assert [finding.code for finding in findings] == ["cpu-unreadable"]


def test_what_a_cgroup_allows_is_told_where_it_is_less_than_there_is(tmp_path: Path) -> None:
    write(tmp_path, "proc/cpuinfo", "\n".join(X86.format(n=n, package=0, core=n) for n in range(4)))
    write(tmp_path, "proc/meminfo", "MemTotal:       4194304 kB\n")
    write(tmp_path, "proc/self/cgroup", "0::/rbee.slice/rbee-hive.service\n")

    def allowed() -> tuple[float | None, int | None]:
        cpu, _ = detect_cpu(tmp_path)
        return cpu.cpus_allowed, cpu.ram_allowed_bytes

    assert allowed() == (None, None)
    write(tmp_path, "sys/fs/cgroup/memory.max", f"{2**31}\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "150000 100000\n")
    assert allowed() == (1.5, 2**31)
    write(tmp_path, "sys/fs/cgroup/memory.max", f"{2**33}\n")
    write(tmp_path, "sys/fs/cgroup/cpu.max", "400000 100000\n")
    assert allowed() == (None, None)
