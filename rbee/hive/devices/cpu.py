"""The CPU and the RAM, as the kernel tells them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from rbee.contracts import Cpu, Finding
from rbee.hive.devices.text import printable

# x86 and others, LoongArch, MIPS, POWER. 64-bit ARM and RISC-V name no model.
_MODEL_KEYS = ("model name", "Model Name", "cpu model", "cpu")


@dataclass(frozen=True, slots=True)
class _Counts:
    cores: int | None
    threads: int | None
    ram_bytes: int | None


def detect_cpu(root: Path) -> tuple[Cpu, list[Finding]]:
    """The CPU and RAM of the machine whose /proc and /sys are under `root`.

    Never raises. A finding 'cpu-unreadable' says that threads or ram_bytes, which every
    machine has, could not be learnt.
    """
    processors = _processors(_read(root / "proc/cpuinfo"))
    counts = _counts_here() if root == Path("/") else _counts_under(root, processors)
    cpu = Cpu(
        model=_model(processors),
        sockets=_sockets(root, processors),
        cores=counts.cores,
        threads=counts.threads,
        ram_bytes=counts.ram_bytes,
    )
    named = {"the number of threads": counts.threads, "the size of the RAM": counts.ram_bytes}
    unknown = [what for what, value in named.items() if not value]
    if not unknown:
        return cpu, []
    return cpu, [Finding("cpu-unreadable", f"/proc does not tell {' and '.join(unknown)}")]


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _processors(cpuinfo: str) -> list[dict[str, str]]:
    """/proc/cpuinfo as a list of its paragraphs; machines differ in what a paragraph is about."""
    paragraphs = []
    for paragraph in cpuinfo.split("\n\n"):
        pairs = (line.partition(":") for line in paragraph.splitlines())
        fields = {key.strip(): value.strip() for key, colon, value in pairs if colon}
        if fields:
            paragraphs.append(fields)
    return paragraphs


def _model(processors: list[dict[str, str]]) -> str | None:
    for key in _MODEL_KEYS:
        for processor in processors:
            model = printable(processor.get(key))
            if model and model.lower() != "unknown":
                return model
    return None


def _sockets(root: Path, processors: list[dict[str, str]]) -> int | None:
    packages = {p["physical id"] for p in processors if "physical id" in p}
    if not packages:
        told = root.glob("sys/devices/system/cpu/cpu[0-9]*/topology/physical_package_id")
        # The kernel says -1 where firmware told it of no package.
        packages = {package for path in told if (package := _read(path).strip()).isdecimal()}
    return len(packages) or None


def _counts_here() -> _Counts:
    import psutil  # here, because its import costs the hive's start 19 ms

    try:
        ram_bytes = psutil.virtual_memory().total
    except OSError:
        ram_bytes = None
    try:
        cores = psutil.cpu_count(logical=False)
    except OSError:
        cores = None
    return _Counts(cores=cores, threads=psutil.cpu_count(), ram_bytes=ram_bytes)


def _counts_under(root: Path, processors: list[dict[str, str]]) -> _Counts:
    # psutil's root is a global of its module, which other threads would see changed.
    total = re.search(r"^MemTotal:\s+(\d+) kB$", _read(root / "proc/meminfo"), re.MULTILINE)
    return _Counts(
        cores=_cores_under(root, processors),
        threads=sum(p.get("processor", "").isdecimal() for p in processors) or None,
        ram_bytes=int(total[1]) * 1024 if total else None,
    )


def _cores_under(root: Path, processors: list[dict[str, str]]) -> int | None:
    siblings = {_read(p) for p in root.glob("sys/devices/system/cpu/cpu[0-9]*/topology/core_cpus_list")}
    if siblings:
        return len(siblings)
    told = {
        p["physical id"]: int(p["cpu cores"])
        for p in processors
        if "physical id" in p and p.get("cpu cores", "").isdecimal()
    }
    return sum(told.values()) or None
