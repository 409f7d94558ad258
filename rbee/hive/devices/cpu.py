"""The CPU and the RAM, as the kernel reports them, and how much of them may be used here."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

from rbee.hive.devices import arm
from rbee.hive.devices.files import cpu_numbers, read_text
from rbee.hive.devices.limits import limits
from rbee.hive.devices.load import memory
from rbee.hive.devices.text import printable
from rbee.wire.devices import Cpu, Finding

# x86 and others, LoongArch, MIPS, POWER, RISC-V.
_MODEL_KEYS = ("model name", "Model Name", "cpu model", "cpu", "uarch")
# The second ones are s390x's, and LoongArch's.
_NUMBER_KEYS = ("processor", "cpu number")
_PACKAGE_KEYS = ("physical id", "package")
_CORE_KEYS = ("core id", "core")

Limit = TypeVar("Limit", int | None, float | None)

Processor = dict[str, str]
"""The fields of a paragraph of /proc/cpuinfo; machines differ in what a paragraph is about."""


class _Counts(NamedTuple):
    sockets: int | None
    cores: int | None
    threads: int | None


def detect_cpu(root: Path) -> tuple[Cpu, list[Finding]]:
    """The CPU and RAM of the machine whose /proc and /sys are under `root`.

    Never raises. A finding 'cpu-unreadable' says that threads or ram_bytes, which every
    machine has, could not be determined.
    """
    processors = _processors(read_text(root / "proc/cpuinfo"))
    counts = _counts(root, processors)
    _, ram_bytes = memory(root)
    allowed = limits(root)
    cpu = Cpu(
        model=_model(processors),
        sockets=counts.sockets,
        cores=counts.cores,
        threads=counts.threads,
        ram_bytes=ram_bytes,
        cpus_allowed=_if_less(allowed.cpus, counts.threads),
        ram_allowed_bytes=_if_less(allowed.ram_bytes, ram_bytes),
    )
    named = {"the number of threads": counts.threads, "the size of the RAM": ram_bytes}
    unknown = [what for what, value in named.items() if not value]
    if not unknown:
        return cpu, []
    return cpu, [Finding("cpu-unreadable", f"/proc does not report {' and '.join(unknown)}")]


def _if_less(limit: Limit, whole: int | None) -> Limit | None:
    """Return the limit if the whole is known and larger, otherwise None."""
    return limit if limit is not None and whole is not None and limit < whole else None


def _processors(cpuinfo: str) -> list[Processor]:
    paragraphs = []
    for paragraph in cpuinfo.split("\n\n"):
        pairs = (line.partition(":") for line in paragraph.splitlines())
        fields = {key.strip(): value.strip() for key, colon, value in pairs if colon}
        if fields:
            paragraphs.append(fields)
    return paragraphs


def _first(processor: Processor, keys: tuple[str, ...]) -> str | None:
    """Return the first of these fields that is a decimal number, as text."""
    return next((processor[key] for key in keys if processor.get(key, "").isdecimal()), None)


# What it is called


def _model(processors: list[Processor]) -> str | None:
    """As lscpu(1) names it; where the cores are of several kinds, each of them."""
    if kinds := _arm_kinds(processors):
        return printable(" + ".join(kinds))
    for key in _MODEL_KEYS:
        for processor in processors:
            model = printable(processor.get(key))
            if model and model.lower() != "unknown":
                return model
    return _mainframe(processors)


def _arm_kinds(processors: list[Processor]) -> list[str]:
    cores = (arm.name(p.get("CPU implementer"), p.get("CPU part")) for p in processors)
    return list(dict.fromkeys(core for core in cores if core))


def _mainframe(processors: list[Processor]) -> str | None:
    """s390x names no model, but the type of the machine, in a line such as
    'processor 0: version = FF,  identification = 2733E8,  machine = 2964'."""
    for processor in processors:
        for line in processor.values():
            if match := re.search(r"\bmachine = (\w{1,8})", line):
                return printable(f"{processor.get('vendor_id', 'IBM/S390')}, machine type {match[1]}")
    return None


# How many there are


def _counts(root: Path, processors: list[Processor]) -> _Counts:
    """Count all three on the same set of CPUs, so that no machine has more cores than threads.

    In a guest /proc/cpuinfo may be about the guest (lxcfs makes it so) and /sys about the host: then
    the numbers of the CPUs in the one mean nothing in the other, and what counts is the guest's.
    """
    listed = [p for p in processors if _first(p, _NUMBER_KEYS)]
    folder = root / "sys/devices/system/cpu"
    online = cpu_numbers(read_text(folder / "online")) or _folders(folder)
    if not listed or len(listed) == len(online):
        counts = _in_sysfs(folder, online)
        if counts.cores or counts.sockets:
            # Without ACPI, an ARM's package is one of its clusters; cores of several kinds are in one chip.
            return counts._replace(sockets=1) if len(_arm_kinds(processors)) > 1 else counts
    return _Counts(
        sockets=_distinct(_first(p, _PACKAGE_KEYS) for p in listed),
        cores=_distinct(_core(p) for p in listed),
        threads=len(listed) or len(online) or None,
    )


def _folders(folder: Path) -> set[int]:
    try:
        names = os.listdir(folder)
    except OSError:
        return set()
    return {int(match[1]) for name in names if (match := re.fullmatch(r"cpu([0-9]{1,6})", name))}


def _in_sysfs(folder: Path, online: set[int]) -> _Counts:
    def topology(cpu: int, name: str) -> str:
        return read_text(folder / f"cpu{cpu}/topology" / name).strip()

    # The kernel has -1 if firmware reported no package.
    packages = {package for cpu in online if (package := topology(cpu, "physical_package_id")).isdecimal()}
    # The second is how a kernel before 5.3 calls the first.
    cores = (
        topology(cpu, "core_cpus_list") or topology(cpu, "thread_siblings_list") or None for cpu in online
    )
    return _Counts(sockets=len(packages) or None, cores=_distinct(cores), threads=len(online))


def _core(processor: Processor) -> tuple[str, str] | None:
    package, core = _first(processor, _PACKAGE_KEYS), _first(processor, _CORE_KEYS)
    return (package, core) if package and core else None


def _distinct(values: Iterable[Hashable]) -> int | None:
    """How many different ones there are; None where one is unknown."""
    found = set(values)
    return None if None in found else len(found) or None
