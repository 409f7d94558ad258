"""Machines with a kernel of their own, which a program of this computer runs.

    with UserModeMachine(tree) as machine:
        machine.run("rbeectl", "add-hive", "localhost", user="ada")

What Machine boots has this computer's kernel, and so its cgroups, processors and cards. Neither kind needs
KVM, which a computer that is virtual itself seldom has: User Mode Linux boots systemd in some seconds and
has cgroups of version 2 with the controllers for memory and CPU time; QEMU has any processors and PCI cards,
and is ten times slower.
"""

from __future__ import annotations

import itertools
import json
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from testbed.commands import Runs
from testbed.host import MachineError, family, tail
from testbed.kernel import Kernel, initramfs
from testbed.lifetime import Lifetime
from testbed.processes import members, tied_to_us, undisturbed

BOOT_SECONDS = 120.0

AGENT = Path(__file__).with_name("agent.py")
AGENT_INSIDE = "etc/testbed/agent.py"


class EmulatedMachine(Runs, Lifetime):
    """One booted machine, as a context. It reads its tree, and writes into a layer in its own RAM."""

    RUN_SECONDS = 60.0

    def __init__(self, tree: Path) -> None:
        self.hostname = (tree / "etc/hostname").read_text().strip()
        self._tree = tree
        self._name = f"{family(os.getpid())}{secrets.token_hex(3)}"
        self._ends = ExitStack()
        self._ids = itertools.count(1)
        self._unread = b""

    @abstractmethod
    def _command(self, scratch: Path, line: int) -> list[str | Path]:
        """The program and its arguments; the file descriptor `line` is for the agent's console."""

    # The machine's life.

    def _start(self) -> None:
        scratch = Path(tempfile.mkdtemp(prefix=f"{self._name}-"))
        self._ends.callback(shutil.rmtree, scratch)
        self._console = scratch / "console"
        self._line, theirs = socket.socketpair()
        self._ends.callback(self._line.close)
        with theirs, self._console.open("ab") as console:
            process = subprocess.Popen(
                [*tied_to_us(), *self._command(scratch, theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                pass_fds=[theirs.fileno()],
                # Ctrl-C is for us; we end the machine.
                start_new_session=True,
            )
        self._ends.callback(_kill, process)
        # The agent's first line says that it is there.
        self._answer(time.monotonic() + BOOT_SECONDS, "boot")

    def _stop(self) -> None:
        with undisturbed():
            self._ends.close()

    # Commands in it.

    def _passwd(self) -> str:
        return (self._tree / "etc/passwd").read_text()

    def _run(
        self, argv: Sequence[str], inside: list[str], text: str | None, timeout: float
    ) -> subprocess.CompletedProcess[str]:
        number = next(self._ids)
        request = {"id": number, "argv": inside, "input": text or ""}
        deadline = time.monotonic() + timeout
        self._line.sendall(json.dumps(request).encode() + b"\n")
        answer: dict[str, Any] = {}
        while answer.get("id") != number:  # a late one to an earlier command may come first
            answer = self._answer(deadline, f"end {' '.join(argv)}")
        return subprocess.CompletedProcess(argv, answer["code"], answer["out"], answer["err"])

    def _answer(self, deadline: float, what: str) -> dict[str, Any]:
        while b"\n" not in self._unread:
            readable, _, _ = select.select([self._line], [], [], max(0, deadline - time.monotonic()))
            received = self._line.recv(1 << 16) if readable else b""
            if not received:
                how = "has ended" if readable else f"did not {what} in time"
                raise MachineError(f"{self.hostname} {how}. Its console:\n{self._last_words()}")
            self._unread += received
        line, _, self._unread = self._unread.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _last_words(self) -> str:
        return tail(self._console.read_text(errors="replace"))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill it, and wait for its process group: a User Mode Linux has more, which end a moment later."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 5
    while left := members(process.pid):
        if time.monotonic() > deadline:
            raise MachineError(f"Processes of {process.args!r} have not ended: {left}")
        time.sleep(0.01)  # they are not our children any more


class UserModeMachine(EmulatedMachine):
    """A Debian under its own systemd and Debian's User Mode Linux: one processor, and no PCI.

    It runs what basic.target starts, sockets included, and then what a test starts.
    """

    TARGET = """\
[Unit]
Description=What a test needs to begin with
Requires=basic.target
Wants=testbed-agent.service
After=basic.target
"""
    SERVICE = f"""\
[Unit]
Description=Does what a test asks for

[Service]
ExecStart=/usr/bin/python3 /{AGENT_INSIDE} /dev/ttyS0
"""

    def __init__(
        self, tree: Path, *, memory_mib: int = 1024, files: Mapping[str, bytes] | None = None
    ) -> None:
        """`files` are in it from the start, by their paths without a leading slash; all may be run."""
        super().__init__(tree)
        self._memory_mib = memory_mib
        self._files = files or {}

    def _command(self, scratch: Path, line: int) -> list[str | Path]:
        files = {
            AGENT_INSIDE: AGENT.read_bytes(),
            "etc/systemd/system/testbed.target": self.TARGET.encode(),
            "etc/systemd/system/testbed-agent.service": self.SERVICE.encode(),
            # debian.py puts polkit in the real-time class; while a cgroup has such a process, this kernel
            # limits no cgroup's CPU time: it is built with CONFIG_RT_GROUP_SCHED.
            "etc/systemd/system/polkit.service.d/one-cpu.conf": b"",
            **self._files,
        }
        modules = Kernel(Path("/usr/lib/uml/modules")).modules(["overlay"])
        start = scratch / "initramfs"
        mount = f"mount -t hostfs -o {self._tree} none /lower"
        start.write_bytes(initramfs(modules, files, mount, "/sbin/init"))
        return [
            # For the file that is its memory; a container's /dev/shm may be too small.
            *("env", f"TMPDIR={scratch}"),
            *("linux.uml", f"umid={self._name}", f"uml_dir={scratch}/", f"mem={self._memory_mib}M"),
            *(f"initrd={start}", "con=null", "con0=null,fd:1", f"ssl0=fd:{line}", "quiet", "panic=-1"),
            *("systemd.unit=testbed.target", "systemd.getty_auto=no"),
            "systemd.unified_cgroup_hierarchy=1",
        ]


class QemuMachine(EmulatedMachine):
    """A Debian and its kernel on a PC that QEMU emulates. Nothing runs in it but what a test starts."""

    INIT = f"""\
#!/bin/sh
set -e
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /run
exec /usr/bin/python3 /{AGENT_INSIDE} /dev/hvc0
"""

    MODULES = ("virtio_pci", "virtio_console", "9pnet_virtio", "9p", "overlay")
    """What the root and the agent need; of these Debian's kernel has none built in."""

    def __init__(
        self,
        tree: Path,
        kernel: Kernel,
        *,
        processors: str = "2",
        memory_mib: int = 1024,
        devices: Sequence[str] = (),
        modules: Sequence[str] = (),
    ) -> None:
        """`processors` and `devices` are what qemu(1) takes for -smp and -device.

        The modules are loaded by load_modules(), as udev loads them in other machines.
        """
        super().__init__(tree)
        self._kernel = kernel
        self._modules = modules
        self._options = ["-smp", processors, "-m", str(memory_mib)]
        self._options += itertools.chain.from_iterable(("-device", device) for device in devices)

    def _command(self, scratch: Path, line: int) -> list[str | Path]:
        at_boot = self._kernel.modules(self.MODULES)
        later = self._kernel.modules(self._modules, without=at_boot)
        files = {AGENT_INSIDE: AGENT.read_bytes(), "etc/testbed/init": self.INIT.encode()}
        files |= {f"modules/{number:03}-{name}.ko": body for number, (name, body) in enumerate(later.items())}
        start = scratch / "initramfs"
        mount = "mount -t 9p -o trans=virtio,version=9p2000.L,cache=loose,msize=512000,ro root /lower"
        start.write_bytes(initramfs(at_boot, files, mount, "/etc/testbed/init"))
        return [
            *("qemu-system-x86_64", "-name", self._name, "-accel", "tcg", "-cpu", "Nehalem"),
            *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", *self._options),
            *("-virtfs", f"local,path={self._tree},security_model=none,readonly=on,mount_tag=root"),
            *("-device", "virtio-serial-pci", "-device", "virtconsole,chardev=agent"),
            *("-chardev", f"socket,id=agent,fd={line}", "-serial", "stdio"),
            *("-kernel", self._kernel.image, "-initrd", start),
            *("-append", "quiet panic=-1 console=ttyS0 mitigations=off"),
        ]

    def load_modules(self) -> None:
        """Load the modules, so that its cards have drivers."""
        self.run("sh", "-ec", "for module in /modules/*.ko; do /modules/busybox insmod $module; done")
