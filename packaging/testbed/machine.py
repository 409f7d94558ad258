"""Disposable machines: a real Debian under its own systemd, booted quickly and thrown away.

    with Machine(tree) as machine:
        machine.run("rbeectl", "add-hive", "localhost", user="ada")

The tree is a directory with a Debian in it (trees.py makes them). A machine writes into a layer of its own
in RAM, so that one tree serves any number of machines at once. Several make a fleet on a bridge:

    with Bridge() as bridge, Machine(tree, bridge=bridge, hostname="gpu1") as machine:
        ...
"""

import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from testbed.bridge import Bridge, Link
from testbed.cgroup import Cgroup
from testbed.commands import Commands
from testbed.host import MachineError, family, tail
from testbed.layers import Layers
from testbed.lifetime import Lifetime
from testbed.processes import children, tied_to_us, undisturbed, watched

BOOT_SECONDS = 60.0
POWEROFF_SECONDS = 20.0


class Machine(Commands, Lifetime):
    """One booted machine, as a context. It leaves nothing behind outside its tree."""

    def __init__(
        self,
        tree: Path,
        *,
        volatile: bool = True,
        bind: Sequence[str] = (),
        bind_ro: Sequence[str] = (),
        shared_network: bool = False,
        bridge: Bridge | None = None,
        hostname: str | None = None,
    ) -> None:
        """bind and bind_ro: "PATH" or "OUTSIDE:INSIDE". Without volatile it writes into the tree itself.

        Without shared_network or a bridge it has only its loopback. hostname: the tree's, if not given; on a
        bridge no two at once have the same.
        """
        super().__init__()
        self.tree = tree
        self.hostname = hostname or (tree / "etc/hostname").read_text().strip()
        self.address = ""
        """On its bridge, IPv4; the same after a reboot."""
        self.name = f"{family(os.getpid())}{secrets.token_hex(3)}"
        self._volatile = volatile
        self.bridge = bridge
        self._is_named = hostname is not None
        self._link: Link | None = None
        self._options = [f"--bind={path}" for path in bind] + [f"--bind-ro={path}" for path in bind_ro]
        if bridge:
            self._options.append(f"--network-bridge={bridge.name}")
        elif not shared_network:
            self._options.append("--private-network")
        self._ends = ExitStack()
        self._nspawn: subprocess.Popen[bytes] | None = None

    # The machine's life.

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self._add_journal_to(error)
        super().__exit__(kind, error, trace)

    def _add_journal_to(self, error: Exception) -> None:
        """Add the end of its journal as a note: the machine has gone when the error is shown."""
        try:
            told = self.run(
                "journalctl", "--boot", "--no-pager", "--lines=60", "--output=short-precise"
            ).stdout
        except MachineError as silent:
            told = str(silent)
        error.add_note(f"The journal of {self.hostname}:\n{told}")

    def _start(self) -> None:
        self._scratch = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        self._ends.callback(shutil.rmtree, self._scratch)
        self._console = self._scratch / "console"
        self.cgroup = Cgroup(self.name)
        self._ends.callback(self.cgroup.remove)
        self.cgroup.make()
        self._layers = Layers(self.tree, self._scratch / "layers", is_volatile=self._volatile)
        self._ends.callback(self._layers.remove)
        if self.bridge:
            self._ends.callback(self.bridge.leave, self)
            self.address = self.bridge.join(self)
            self._link = Link(self.hostname, self.address)
        elif self._is_named:
            self.write_names({self.hostname: "127.0.1.1"})
        self._ends.callback(self._end_machine)
        self._boot()

    def _stop(self) -> None:
        with undisturbed():
            self._ends.close()

    def poweroff(self) -> None:
        """Shuts the machine down in order."""
        self.run("systemctl", "poweroff", check=False)
        self._wait_end("power off")

    def reboot(self) -> None:
        """Reboots the machine, which keeps what was written, volatile or not."""
        self.run("systemctl", "reboot", check=False)
        self._wait_end("go down for the reboot")
        self._boot()

    def cut_power(self) -> None:
        """Kills the machine between two of its instructions, and boots it again.

        As this computer goes on, what the machine had in the page cache is not lost.
        """
        leader = self.leader
        self._end_machine()
        if Path(f"/proc/{leader}").exists():
            raise MachineError(f"The machine's PID 1, here {leader}, has not ended")
        self._boot()

    def cut(self) -> None:
        """Cuts the machine's link to the bridge; it loses its carrier, and keeps its address.

        It stays out over a reboot, until mend.
        """
        assert self._link
        self._link.cut()

    def mend(self) -> None:
        """Restores the link; returns when the bridge forwards again."""
        assert self._link
        self._link.mend()

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """As a laptop that is closed: nothing in it runs, and its link is down. Its clocks go on."""
        self.cut()
        try:
            self.cgroup.freeze(True)
            try:
                yield
            finally:
                self.cgroup.freeze(False)
        finally:
            self.mend()

    def write_names(self, names: Mapping[str, str]) -> None:
        """Its hostname, and these addresses by hostname as its /etc/hosts, whether it runs or not."""
        self._layers.write_names(self.hostname, names)

    def _boot(self) -> None:
        # A socket for each boot: nobody reads from it later, and its writers must not wait.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.bind(f"\0{self.name}")
            self._spawn()
            self._await_ready(notify)
        state = self.run("systemctl", "is-system-running", "--wait", check=False).stdout.strip()
        if state != "running":
            failed = self.run("systemctl", "--failed", "--no-legend", "--plain", check=False).stdout
            raise MachineError(f"The machine is {state or 'not answering'}. Failed units:\n{failed}")

    def _spawn(self) -> None:
        with self._console.open("ab") as console:
            self._nspawn = subprocess.Popen(
                [
                    *("sh", "-c", 'echo 0 >"$0" && exec "$@"', str(self.cgroup.path / "cgroup.procs")),
                    *self._layers.enter,
                    *tied_to_us(),
                    *("systemd-nspawn", "--quiet", "--boot", "--settings=no"),
                    # There may be no systemd here to register with.
                    *("--register=no", "--keep-unit", f"--machine={self.name}"),
                    f"--hostname={self.hostname}",
                    f"--directory={self._layers.root}",
                    *("--notify-ready=yes", "--console=read-only"),
                    *("--link-journal=no", "--resolv-conf=off", "--timezone=off"),
                    *self._options,
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                # Ctrl-C is for us; we end the machine.
                start_new_session=True,
                umask=0o022,
                env={
                    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "NOTIFY_SOCKET": f"@{self.name}",
                    "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1",
                },
            )

    def _await_ready(self, notify: socket.socket) -> None:
        """Waits for systemd-nspawn to report the leader's pid, and then, with --notify-ready, the boot."""
        deadline = time.monotonic() + BOOT_SECONDS
        assert self._nspawn
        with watched(self._nspawn) as ended:
            while True:
                left = deadline - time.monotonic()
                readable, _, _ = select.select([notify.fileno(), ended], [], [], max(left, 0))
                if notify.fileno() in readable:
                    lines = notify.recv(4096).decode().splitlines()
                    fields = dict(line.split("=", 1) for line in lines if line)
                    if "X_NSPAWN_LEADER_PID" in fields:
                        self.leader = int(fields["X_NSPAWN_LEADER_PID"])
                        # Now, so that the address is there before what is started at boot asks for it.
                        if self._link:
                            self._link.connect(self.leader)
                    if fields.get("READY") == "1":
                        return
                elif ended in readable:
                    raise MachineError(f"The machine ended while booting. {self._console_tail()}")
                else:
                    raise MachineError(f"No boot within {BOOT_SECONDS:.0f} s. {self._console_tail()}")

    def _console_tail(self) -> str:
        return f"Its console:\n{tail(self._console.read_text(errors='replace'))}"

    def _wait_end(self, what: str) -> None:
        assert self._nspawn
        try:
            self._nspawn.wait(POWEROFF_SECONDS)
        except subprocess.TimeoutExpired:
            raise MachineError(
                f"The machine did not {what} within {POWEROFF_SECONDS:.0f} s. {self._console_tail()}"
            ) from None

    def _end_machine(self) -> None:
        """As a power cut does: without its PID 1 the kernel ends the rest, and systemd-nspawn goes."""
        nspawn = self._nspawn
        if nspawn and nspawn.poll() is None:
            if self.leader in children(nspawn.pid):
                os.kill(self.leader, signal.SIGKILL)
            else:
                nspawn.terminate()
            try:
                nspawn.wait(POWEROFF_SECONDS)
            except subprocess.TimeoutExpired:
                nspawn.kill()
                nspawn.wait()
        self._end_commands()
