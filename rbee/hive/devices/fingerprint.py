"""A text that changes when the devices may have changed.

It is part of each heartbeat, and so is made of files that the kernel answers without asking a driver.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from rbee.hive.devices import pci
from rbee.hive.devices.files import read_text
from rbee.hive.devices.limits import limits

_NODE = re.compile(r"nvidia(ctl|\d+)")


def fingerprint(root: Path, nvml_changes: int) -> str:
    """Return the fingerprint of cards and their drivers, NVIDIA's driver, CPUs, RAM, and limits of these.

    `nvml_changes` is Nvml.changes. Of the RAM only whole GiB count: a virtual machine's balloon moves
    all the time.
    """
    driver = root / "sys/module/nvidia"
    memory = re.match(r"MemTotal:\s+(\d{1,12}) kB", read_text(root / "proc/meminfo"))
    parts = (
        *pci.outline(root),
        *(read_text(driver / name) for name in ("version", "initstate")),
        read_text(root / "proc/driver/nvidia/version"),
        # The nodes come a moment after the driver; what could not be opened without them now can.
        *_nodes(root / "dev"),
        read_text(root / "sys/devices/system/cpu/online"),
        str(round(int(memory[1]) / 2**20)) if memory else "",
        str(limits(root)),
        str(nvml_changes),
    )
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=8).hexdigest()


def _nodes(folder: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if _NODE.fullmatch(name))
    except OSError:
        return []
