"""What machines have left on this computer: found, and removed."""

import os
import re
import shutil
import socket
import tempfile
from contextlib import suppress
from pathlib import Path

from testbed.cgroup import Cgroup, cgroup_mounts
from testbed.host import MachineError, family, ip


def left_behind(pid: int) -> list[str]:
    """What is left of that process's machines: processes, also if they only hold mounts, cgroups, …"""
    prefix = family(pid)
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (process / "cmdline").read_text(errors="replace").replace("\0", " ")
            if prefix in command or prefix in (process / "mountinfo").read_text():
                left.append(f"process {process.name}: {command}")
    for hierarchy in cgroup_mounts():
        for directory, _, _ in os.walk(hierarchy):
            if Path(directory).name.startswith(prefix):
                left.append(f"cgroup {directory}")
    left += [f"files {path}" for path in Path(tempfile.gettempdir()).glob(f"{prefix}*")]
    left += [f"bridge {name}" for _, name in socket.if_nameindex() if name.startswith(prefix)]
    return left


def sweep() -> None:
    """Removes what is left of machines that have ended, and whose owner was killed."""
    for files in Path(tempfile.gettempdir()).glob("rbee-*"):
        if not (owned := re.fullmatch(r"(rbee-(\d+)-[0-9a-f]{6})-\w{8}", files.name)):
            continue
        name, owner = owned.groups()
        if _has_ended(int(owner)):
            Cgroup(name).remove()
            shutil.rmtree(files, ignore_errors=True)
    for _, link in socket.if_nameindex():
        if (owned := re.fullmatch(r"rbee-(\d+)-\d+", link)) and _has_ended(int(owned[1])):
            with suppress(MachineError):  # another run may sweep, too
                ip("link", "delete", link)


def _has_ended(owner: int) -> bool:
    """Have the process and all of its machines ended?"""
    return not Path(f"/proc/{owner}").exists() and not any(
        what.startswith("process ") for what in left_behind(owner)
    )
