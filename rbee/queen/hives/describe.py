"""Describes devices, and differences between them, as text."""

from __future__ import annotations

from rbee.wire.devices import Devices, Gpu

CHANGES_MAX = 8
"""Entries of one line; if there are more changes, the last entry is the number of the rest."""


def describe(hive_id: str, devices: Devices) -> str:
    """Return one line about what a hive has, in the prescribed wording."""
    parts = [f"a cpu ({_cpu(devices)})", *(f"gpu{gpu.index} ({_gpu(gpu)})" for gpu in devices.gpus)]
    models, workers = len(devices.model_catalog), len(devices.worker_catalog)
    return (
        f"the beehive {hive_id} has {', '.join(parts)} and model catalog has "
        f"{models} models and {workers} workers available"
    )


def _cpu(devices: Devices) -> str:
    cpu = devices.cpu
    parts = [cpu.model or "model unknown"]
    parts += [f"{cpu.threads} threads"] if cpu.threads is not None else []
    parts += [f"{gib(cpu.ram_bytes)} RAM"] if cpu.ram_bytes is not None else []
    allowed = []
    if cpu.cpus_allowed is not None:
        allowed.append(f"{cpu.cpus_allowed:g} CPU{'s' if cpu.cpus_allowed != 1 else ''}")
    if cpu.ram_allowed_bytes is not None:
        allowed.append(gib(cpu.ram_allowed_bytes))
    parts += [f"limited to {' and '.join(allowed)}"] if allowed else []
    return ", ".join(parts)


def _gpu(gpu: Gpu) -> str:
    name = gpu.name or gpu.pci_address or gpu.vendor
    if gpu.memory_kind == "shared":
        return f"{name}, {_memory(gpu)} memory"
    return name if gpu.vram_bytes is None else f"{name}, {gib(gpu.vram_bytes)} VRAM"


def gib(count: int) -> str:
    """Return a number of bytes as text, such as '24.0 GiB'."""
    return f"{count / 2**30:.1f} GiB"


def differences(old: Devices, new: Devices) -> list[str]:
    """Return the changes that are shown to people, a text each; [] if there are none."""
    changes = [*_cpu_differences(old, new), *_gpu_differences(old, new)]
    before, now = ({finding.code: finding for finding in devices.findings} for devices in (old, new))
    changes += [f"{code}: {finding.detail}" for code, finding in now.items() if code not in before]
    changes += [f"{code} is over" for code in before if code not in now]
    if len(changes) > CHANGES_MAX:
        changes = [*changes[: CHANGES_MAX - 1], f"and {len(changes) - CHANGES_MAX + 1} more changes"]
    return changes


def _cpu_differences(old: Devices, new: Devices) -> list[str]:
    pairs = (
        ("cpu", old.cpu.model, new.cpu.model),
        ("sockets", old.cpu.sockets, new.cpu.sockets),
        ("cores", old.cpu.cores, new.cpu.cores),
        ("threads", old.cpu.threads, new.cpu.threads),
        ("RAM", _size(old.cpu.ram_bytes), _size(new.cpu.ram_bytes)),
        ("limit of CPUs", _limit(old.cpu.cpus_allowed), _limit(new.cpu.cpus_allowed)),
        (
            "limit of RAM",
            _size(old.cpu.ram_allowed_bytes) or "none",
            _size(new.cpu.ram_allowed_bytes) or "none",
        ),
        ("models", len(old.model_catalog), len(new.model_catalog)),
        ("workers", len(old.worker_catalog), len(new.worker_catalog)),
    )
    return [_change(what, before, now) for what, before, now in pairs if before != now]


def _gpu_differences(old: Devices, new: Devices) -> list[str]:
    """Return removed cards, new cards, and the changes of the others.

    A change of driver is listed once if it is the same for every card whose driver has changed.
    """
    left = list(old.gpus)
    pairs, added = [], []
    for gpu in new.gpus:
        before = next((one for one in left if _is_same(one, gpu)), None)
        if before is None:
            added.append(gpu)
        else:
            left.remove(before)
            pairs.append((before, gpu))
    changes = [f"gpu{gpu.index} ({_card(gpu)}) is gone" for gpu in left]
    changes += [f"gpu{gpu.index} ({_card(gpu)}) is new" for gpu in added]
    drivers = {(before.driver, now.driver) for before, now in pairs if before.driver != now.driver}
    changes += [_change("driver", before, now) for before, now in drivers if len(drivers) == 1]
    for before, now in pairs:
        changes += _card_differences(before, now, with_driver=len(drivers) > 1)
    return changes


def _card_differences(old: Gpu, new: Gpu, *, with_driver: bool) -> list[str]:
    pairs = (
        ("name", old.name, new.name),
        ("memory", _memory(old), _memory(new)),
        ("driver", old.driver, new.driver if with_driver else old.driver),
        ("address", old.pci_address, new.pci_address),
    )
    changes = [
        _change(f"gpu{new.index}: {what}", before, now) for what, before, now in pairs if before != now
    ]
    if new.problem != old.problem:
        changes.append(f"gpu{new.index}: {new.problem or 'its problem is over'}")
    return changes


def _is_same(old: Gpu, new: Gpu) -> bool:
    """Is it the same card, by its uuid (also in another slot), or else by its PCI address?"""
    if old.uuid and new.uuid:
        return old.uuid == new.uuid
    if old.pci_address or new.pci_address:
        return old.pci_address == new.pci_address
    return (old.index, old.vendor) == (new.index, new.vendor)


def _change(what: str, old: str | int | None, new: str | int | None) -> str:
    before, now = ("unknown" if value is None else value for value in (old, new))
    return f"{what} {before} -> {now}"


def _card(gpu: Gpu) -> str:
    name, memory = gpu.name or gpu.pci_address or gpu.vendor, _memory(gpu)
    return name if memory is None else f"{name}, {memory}"


def _memory(gpu: Gpu) -> str | None:
    """Return '24.0 GiB', '96.5 GiB shared' or 'shared'; None if nothing is known."""
    size = _size(gpu.memory_bytes)
    if gpu.memory_kind != "shared":
        return size
    return "shared" if size is None else f"{size} shared"


def _limit(count: float | None) -> str:
    return "none" if count is None else f"{count:g}"


def _size(count: int | None) -> str | None:
    return None if count is None else gib(count)
