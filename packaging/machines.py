"""Disposable machines: a real Debian under a systemd of its own, booted in a blink and thrown away.

    with Machine(tree) as machine:
        machine.run("rbeectl", "add-hive", "localhost", user="ada")

The tree is a directory with a Debian in it (trees.py makes them). A machine writes into a layer of its own
in RAM, so that one tree serves any number of machines at once. Several make a fleet on a bridge:

    with Bridge() as bridge, Machine(tree, bridge=bridge, hostname="gpu1") as machine:
        ...
"""

import fcntl
import ipaddress
import json
import os
import re
import secrets
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import termios
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).resolve().parent

BOOT_SECONDS = 60.0
POWEROFF_SECONDS = 20.0
LINK_SECONDS = 5.0


class MachineError(Exception):
    """A machine, its tree or a command in it failed; the message says all there is to know."""


def why_not() -> str | None:
    """One line with the cure if no machine can be booted here."""
    return subprocess.run([HERE / "why-not"], stdout=subprocess.PIPE, text=True).stdout.strip() or None


# -- machines ---------------------------------------------------------------------------------------------


class Machine:
    """One booted machine, from with to its end. What it leaves outside its tree is nothing."""

    def __init__(
        self,
        tree: Path,
        *,
        volatile: bool = True,
        bind: Sequence[str] = (),
        bind_ro: Sequence[str] = (),
        shared_network: bool = False,
        bridge: "Bridge | None" = None,
        hostname: str | None = None,
    ) -> None:
        """bind and bind_ro: "PATH" or "OUTSIDE:INSIDE". Without volatile it writes into the tree itself.

        Without shared_network or a bridge it has only its loopback. hostname: the tree's, if not given; on a
        bridge no two at once have the same.
        """
        self.tree = tree
        self.hostname = hostname or (tree / "etc/hostname").read_text().strip()
        self.address = ""
        """On its bridge, IPv4; the same after a reboot."""
        self.name = f"{_family(os.getpid())}{secrets.token_hex(3)}"
        self.leader = 0
        """The machine's PID 1, as this computer counts."""
        self._volatile = volatile
        self.bridge = bridge
        self._is_named = hostname is not None
        self._is_cut = False
        self._link = ""
        """This computer's end of the machine's link."""
        self._options = [f"--bind={path}" for path in bind] + [f"--bind-ro={path}" for path in bind_ro]
        if bridge:
            self._options.append(f"--network-bridge={bridge.name}")
        elif not shared_network:
            self._options.append("--private-network")
        self._ends = ExitStack()
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._entered: list[subprocess.Popen[str]] = []

    # The machine's life.

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    def _start(self) -> None:
        self._scratch = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        self._ends.callback(shutil.rmtree, self._scratch)
        self._console = self._scratch / "console"
        self.cgroup = Cgroup(self.name)
        self._ends.callback(self.cgroup.remove)
        self.cgroup.make()
        self._holder = self._hold_mounts()
        self._ends.callback(_end, self._holder)
        if self.bridge:
            self._ends.callback(self.bridge.leave, self)
            self.address = self.bridge.join(self)
        elif self._is_named:
            self.write_names({self.hostname: "127.0.1.1"})
        self._ends.callback(self._end_machine)
        self._boot()

    def _stop(self) -> None:
        with undisturbed():
            self._ends.close()

    def poweroff(self) -> None:
        """As its owner does it; only then has everything in it been stopped in order."""
        self.run("systemctl", "poweroff", check=False)
        self._wait_end("power off")

    def reboot(self) -> None:
        """Keeps what was written, volatile or not."""
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
        """Pulls the machine's plug out of the bridge; it sees its carrier gone, and keeps its address.

        It stays out over a reboot, until mend.
        """
        self._is_cut = True
        _ip("link", "set", self._link, "down")

    def mend(self) -> None:
        """Returns when the bridge forwards again."""
        self._is_cut = False
        _ip("link", "set", self._link, "up")
        self._await_forwarding()

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
        etc = Path(f"/proc/{self._holder.pid}/root{self._scratch}/layers/root/etc")
        lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost"]
        lines += [f"{address}\t{name}" for name, address in names.items()]
        for name, text in (("hosts", "\n".join(lines)), ("hostname", self.hostname)):
            new = etc / f"{name}.new"
            new.write_text(f"{text}\n")
            new.chmod(0o644)
            new.rename(etc / name)

    def _hold_mounts(self) -> subprocess.Popen[bytes]:
        """The layers of a machine live in the mount namespace of a process that only waits.

        They outlive a reboot, and vanish with the process: nothing has to be unmounted, and as it reads
        from us, it ends when we do, even by SIGKILL.
        """
        layers = """
            set -e
            mount -t tmpfs -o mode=0755 tmpfs "$1"
            cd "$1"
            mkdir upper work root
            if [ "$3" = volatile ]; then
                cd "$2"
                mount -t overlay -o "lowerdir=.,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
                tr -d - </proc/sys/kernel/random/uuid >"$1/root/etc/machine-id"
            else
                mount --bind "$2" "$1/root"
            fi
            echo mounted
            exec cat
        """
        (self._scratch / "layers").mkdir()
        arguments = [
            str(self._scratch / "layers"),
            str(self.tree.resolve()),
            "volatile" if self._volatile else "",
        ]
        holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "slave", "--", "sh", "-c", layers, "sh", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            umask=0o022,
        )
        assert holder.stdout
        assert holder.stderr
        if holder.stdout.readline() != b"mounted\n":
            words = holder.stderr.read().decode()
            _end(holder)
            raise MachineError(f"The layers of {self.tree} could not be mounted: {words.strip()}")
        return holder

    def _boot(self) -> None:
        # A socket for each boot: nobody reads from it later, and whoever writes must not wait.
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
                    *("nsenter", f"--target={self._holder.pid}", "--mount", "--root", "--wd", "--"),
                    *_tied_to_us(),
                    *("systemd-nspawn", "--quiet", "--boot", "--settings=no"),
                    # There may be no systemd here to register with.
                    *("--register=no", "--keep-unit", f"--machine={self.name}"),
                    f"--hostname={self.hostname}",
                    f"--directory={self._scratch / 'layers/root'}",
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
        """systemd-nspawn tells who the leader is, and then, with --notify-ready, that it has booted."""
        deadline = time.monotonic() + BOOT_SECONDS
        assert self._nspawn
        with _watched(self._nspawn) as ended:
            while True:
                left = deadline - time.monotonic()
                readable, _, _ = select.select([notify.fileno(), ended], [], [], max(left, 0))
                if notify.fileno() in readable:
                    lines = notify.recv(4096).decode().splitlines()
                    told = dict(line.split("=", 1) for line in lines if line)
                    if "X_NSPAWN_LEADER_PID" in told:
                        self.leader = int(told["X_NSPAWN_LEADER_PID"])
                        # Now, so that the address is there before what is started at boot asks for it.
                        self._connect()
                    if told.get("READY") == "1":
                        return
                elif ended in readable:
                    raise MachineError(f"The machine ended while booting. {self._console_tail()}")
                else:
                    raise MachineError(f"No boot within {BOOT_SECONDS:.0f} s. {self._console_tail()}")

    def _connect(self) -> None:
        """Gives the machine's end of the link its address: nothing in the machine has to, nor does DHCP."""
        if not self.bridge:
            return
        # Of the address, so that who knew an earlier machine of that name need not learn of another.
        mac = "02:00:" + ipaddress.IPv4Address(self.address).packed.hex(":")
        _ip("link", "set", "host0", "address", mac, inside=self.leader)
        _ip("address", "add", f"{self.address}/{PREFIX}", "dev", "host0", inside=self.leader)
        _ip("link", "set", "host0", "up", inside=self.leader)
        [told] = json.loads(_ip("-json", "link", "show", "host0", inside=self.leader))
        self._link = socket.if_indextoname(told["link_index"])
        if self._is_cut:
            self.cut()
        else:
            self._await_forwarding()

    def _await_forwarding(self) -> None:
        # The kernel has a worker see to it that an end that is up becomes a port that forwards.
        deadline = time.monotonic() + LINK_SECONDS
        state = Path(f"/sys/class/net/{self._link}/brport/state")
        while state.read_text().strip() != FORWARDING:
            if time.monotonic() > deadline:
                raise MachineError(f"The bridge forwards nothing to {self.hostname}, its link {self._link}")
            time.sleep(0.005)

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
            if self.leader in _children(nspawn.pid):
                os.kill(self.leader, signal.SIGKILL)
            else:
                nspawn.terminate()
            try:
                nspawn.wait(POWEROFF_SECONDS)
            except subprocess.TimeoutExpired:
                nspawn.kill()
                nspawn.wait()
        for process in self._entered:
            if process.poll() is None:
                _kill_inside(process)
            for pipe in (process.stdin, process.stdout, process.stderr):
                with suppress(OSError):
                    if pipe:
                        pipe.close()

    # What is done in it.

    def run(
        self,
        *argv: str,
        user: str | None = None,
        groups: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        input: str | None = None,  # noqa: A002 - as in subprocess.run
        timeout: float = 30,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command to its end; as root, if no user is named, without a terminal.

        groups: the supplementary groups of a login from before the user's groups changed; () is none.
        With check an exit code other than 0 is a MachineError with what the command said. After a signal
        the exit code is 128 and its number, as in a shell.
        """
        process = self._open(self._inside(argv, user, groups, env or {}), input is not None)
        try:
            out, err = process.communicate(input, timeout)
        except subprocess.TimeoutExpired:
            _kill_inside(process)
            out, err = process.communicate()
            raise MachineError(_said(argv, f"has not ended within {timeout:g} s", out, err)) from None
        except BaseException:
            _kill_inside(process)
            process.communicate()
            raise
        if check and process.returncode:
            raise MachineError(_said(argv, f"exit code {process.returncode}", out, err))
        return subprocess.CompletedProcess(argv, process.returncode, out, err)

    def popen(
        self,
        *argv: str,
        user: str | None = None,
        groups: Sequence[str] | None = None,
        env: Mapping[str, str] | None = None,
        reads_input: bool = False,
    ) -> subprocess.Popen[str]:
        """Starts a command with pipes; signal() reaches it. It ends with the machine at the latest."""
        process = self._open(self._inside(argv, user, groups, env or {}), reads_input)
        self._entered.append(process)
        return process

    def _open(self, command: Sequence[str], reads_input: bool) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE if reads_input else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )

    def signal(self, process: subprocess.Popen[str], number: signal.Signals) -> None:
        """Signals the command that popen started, not the shell that waits for it."""
        deadline = time.monotonic() + 5
        while process.poll() is None and time.monotonic() < deadline:
            if commands := _children(process.pid):
                os.kill(commands[0], number)
                return
            time.sleep(0.005)  # not started yet; nothing tells when it is
        raise MachineError(f"No command to signal: {process.args!r}, exit code {process.returncode}")

    def interactive(self, *argv: str, user: str | None = None) -> int:
        """Hands the terminal to a command, through a terminal of the machine's own."""
        quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in argv)
        script = ["script", "--quiet", "--return", "--command", f"exec {quoted}", "/dev/null"]
        env = {"TERM": os.environ.get("TERM", "dumb")}
        settings = termios.tcgetattr(0) if os.isatty(0) else None
        # In this session, as the terminal is its; script passes Ctrl-C on as a key.
        process = subprocess.Popen(self._inside(script, user, None, env), text=True)
        try:
            return process.wait()
        except BaseException:
            _kill_inside(process)
            raise
        finally:
            if settings:
                termios.tcsetattr(0, termios.TCSADRAIN, settings)

    def copy_in(self, path: Path, inside: str) -> None:
        """A file or a directory, to the full path named, owned by root."""
        # Not through /proc/PID/root: an absolute symlink in there would lead back out.
        pack = ["tar", "--create", "--owner=0", "--group=0", "--directory", str(path.parent), "--", path.name]
        unpack = """
            set -e
            mkdir -p "$1"
            aside=$(mktemp -d "$1/.copy-XXXXXX")
            tar --extract --directory="$aside"
            mv -T -- "$aside/$2" "$1/$3"
            rmdir "$aside"
        """
        names = (str(Path(inside).parent), path.name, Path(inside).name)
        command = self._inside(["sh", "-c", unpack, "sh", *names], None, None, {})
        with subprocess.Popen(pack, stdout=subprocess.PIPE) as packer:
            copied = subprocess.run(
                command, stdin=packer.stdout, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        if packer.returncode or copied.returncode:
            raise MachineError(f"{path} could not be copied to {inside}: {copied.stdout.strip()}")

    def journal(self, *matches: str) -> list[dict[str, Any]]:
        """The entries that match, such as "RBEE_JOB_ID=…" or "--unit=queen-rbee", oldest first."""
        self.run("journalctl", "--sync")
        told = self.run("journalctl", "--output=json", "--all", "--no-pager", *matches).stdout
        return [json.loads(line) for line in told.splitlines()]

    def _inside(
        self, argv: Sequence[str], user: str | None, groups: Sequence[str] | None, env: Mapping[str, str]
    ) -> list[str]:
        # A shell waits for the command rather than nsenter, which stops with it when systemd-shutdown stops
        # all processes, and is not woken with it: then nobody would reap the command, nor PID 1 ever end.
        enter = ["nsenter", f"--target={self.leader}", "--all", "--root", "--wd", "--no-fork", "--"]
        enter += ["/bin/sh", "-c", '"$@"; exit $?', "sh"]
        if user is None:
            home = "/root"
            start = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
            start += ["HOME=/root", "USER=root", "LOGNAME=root", "SHELL=/bin/bash"]
        else:
            uid, gid, home = self._account(user)
            start = ["setpriv", f"--reuid={uid}", f"--regid={gid}", "--reset-env"]
            if groups is None:
                start.append("--init-groups")
            else:
                start.append(f"--groups={','.join(groups)}" if groups else "--clear-groups")
            start += ["--", "env"]
        start += ["LANG=C.UTF-8", *(f"{name}={value}" for name, value in env.items())]
        return [*enter, *start, "sh", "-c", 'cd "$0" 2>/dev/null; exec "$@"', home, *argv]

    def _account(self, user: str) -> tuple[int, int, str]:
        for line in Path(f"/proc/{self.leader}/root/etc/passwd").read_text().splitlines():
            name, _, uid, gid, _, home, _ = line.split(":")
            if name == user:
                return int(uid), int(gid), home
        raise MachineError(f"The machine has no user {user}")


# -- bridges ----------------------------------------------------------------------------------------------

PREFIX = 24
FORWARDING = "3"
"""The state of a bridge's port, BR_STATE_FORWARDING in linux/if_bridge.h."""


class Bridge:
    """A network for machines, from with to its end: they reach each other and this computer, nothing else.

    They know each other by hostname, also one that has ended. It outlives its machines.
    """

    def __init__(self) -> None:
        self.name = ""
        """Of the network interface, at most 15 characters."""
        self.address = ""
        """This computer's own on it, IPv4."""
        self.names: dict[str, str] = {}
        """The addresses by name, as all machines have them in /etc/hosts."""
        self._addresses: Iterator[ipaddress.IPv4Address] = iter(())
        """Those that are free."""
        self._hosts: set[str] = set()
        self._machines: list[Machine] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        # One at a time takes a name and a network, so that no other takes the same.
        with Path("/proc/self/ns/net").open("rb") as namespace:
            fcntl.flock(namespace, fcntl.LOCK_EX)
            links = {name for _, name in socket.if_nameindex()}
            free = (f"{_family(os.getpid())}{number}" for number in range(len(links) + 1))
            self.name = next(name for name in free if name not in links)
            self._addresses = _free_network().hosts()
            try:
                self._make()
            except BaseException:
                self._remove()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._remove()

    def _make(self) -> None:
        # With an address of its own it does not take that of whichever port was plugged in last.
        mac = f"02:01:{secrets.token_bytes(4).hex(':')}"
        _ip("link", "add", self.name, "address", mac, "type", "bridge")
        self.address = self._add_address()
        _ip("link", "set", self.name, "up")

    def _remove(self) -> None:
        with undisturbed():
            if self.name in {name for _, name in socket.if_nameindex()}:
                _ip("link", "delete", self.name)

    def _add_address(self) -> str:
        address = str(next(self._addresses))
        _ip("address", "add", f"{address}/{PREFIX}", "dev", self.name)
        return address

    def host(self, name: str) -> str:
        """One more address of this computer's, which the machines know by this name: for a relay, say."""
        with self._lock:
            if name in self.names:
                raise MachineError(f"There is a {name} on {self.name} already")
            self._hosts.add(name)
            self.names[name] = self._add_address()
            self._tell()
            return self.names[name]

    def join(self, machine: Machine) -> str:
        """The address for a machine that is about to boot; the same for the next of that name."""
        with self._lock:
            if machine.hostname not in self.names:
                self.names[machine.hostname] = str(next(self._addresses))
            elif machine.hostname in self._hosts or any(
                other.hostname == machine.hostname for other in self._machines
            ):
                raise MachineError(f"There is a {machine.hostname} on {self.name} already")
            self._machines.append(machine)
            self._tell()
            return self.names[machine.hostname]

    def leave(self, machine: Machine) -> None:
        with self._lock, suppress(ValueError):  # if it was refused
            self._machines.remove(machine)

    def _tell(self) -> None:
        for machine in self._machines:
            machine.write_names(self.names)


def _free_network() -> ipaddress.IPv4Network:
    """A 10.x.y.0/24 of which nothing on this computer has an address, and to which it has no route."""
    taken = []
    for link in json.loads(_ip("-json", "-4", "address")):
        taken += [f"{told['local']}/{told['prefixlen']}" for told in link.get("addr_info", [])]
    for route in json.loads(_ip("-json", "-4", "route", "show", "table", "all")):
        if route["dst"] not in ("default", "0.0.0.0/0"):
            taken.append(route["dst"])
    networks = [ipaddress.IPv4Network(network, strict=False) for network in taken]
    while True:
        network = ipaddress.IPv4Network((f"10.{secrets.randbelow(256)}.{secrets.randbelow(256)}.0", PREFIX))
        if not any(network.overlaps(other) for other in networks):
            return network


def _ip(*words: str, inside: int = 0) -> str:
    """What this computer's ip says; inside: of the network of the process with that ID."""
    enter = ["nsenter", f"--target={inside}", "--net", "--"] if inside else []
    try:
        done = subprocess.run(
            [*enter, "ip", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
    except FileNotFoundError:
        raise MachineError("There is no ip for a bridge. Install it with: apt install iproute2") from None
    if done.returncode:
        raise MachineError(_said(["ip", *words], f"exit code {done.returncode}", done.stdout, done.stderr))
    return done.stdout


# -- what a machine stands on ------------------------------------------------------------------------------


class Cgroup:
    """A cgroup for one machine: with --keep-unit machines would else share one, units and all."""

    def __init__(self, name: str) -> None:
        self._hierarchies = _cgroup_mounts()
        self._place = _our_cgroup(self._hierarchies[0]) / name
        self.path = self._hierarchies[0] / self._place

    def make(self) -> None:
        self.path.mkdir()

    def freeze(self, is_frozen: bool) -> None:
        """Returns when all processes in it have stopped, or go on."""
        (self.path / "cgroup.freeze").write_text(f"{is_frozen:d}")
        deadline = time.monotonic() + 5
        while f"frozen {is_frozen:d}" not in (self.path / "cgroup.events").read_text():
            if time.monotonic() > deadline:
                raise MachineError(f"{self.path} is not {'frozen' if is_frozen else 'thawed'} after 5 s")
            time.sleep(0.005)

    def remove(self) -> None:
        # systemd-nspawn makes the same place in systemd's legacy hierarchy, where there is one.
        for hierarchy in self._hierarchies:
            for directory, _, _ in os.walk(hierarchy / self._place, topdown=False):
                remove_cgroup(Path(directory))


def remove_cgroup(path: Path) -> None:
    deadline = time.monotonic() + 5
    while True:
        try:
            path.rmdir()
            return
        except OSError:
            # Busy for a moment after its last process has gone; nothing that rmdir heeds tells when.
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _our_cgroup(mount: Path) -> Path:
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        place = Path(line.removeprefix("0::/"))
        if line.startswith("0::/") and ".." not in place.parts and (mount / place).is_dir():
            return place
    return Path()


def _cgroup_mounts() -> list[Path]:
    """Where cgroup2 is mounted, then where systemd's own legacy hierarchy is, if at all."""
    unified, legacy = [], []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        mount, _, kind = line.partition(" - ")
        if kind.startswith("cgroup2 "):
            unified.append(Path(mount.split()[4]))
        elif kind.startswith("cgroup ") and "name=systemd" in kind.split()[-1].split(","):
            legacy.append(Path(mount.split()[4]))
    if not unified:
        raise MachineError(why_not() or "No cgroup2 is mounted")
    return unified[:1] + legacy[:1]


def _family(pid: int) -> str:
    """What the names of this process's machines begin with."""
    return f"rbee-{pid}-"


def left_behind(pid: int) -> list[str]:
    """What there is now of the machines of that process: processes, those holding mounts too, and so on."""
    family = _family(pid)
    left = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            command = (process / "cmdline").read_text(errors="replace").replace("\0", " ")
            if family in command or family in (process / "mountinfo").read_text():
                left.append(f"process {process.name}: {command}")
    for hierarchy in _cgroup_mounts():
        for directory, _, _ in os.walk(hierarchy):
            if Path(directory).name.startswith(family):
                left.append(f"cgroup {directory}")
    left += [f"files {path}" for path in Path(tempfile.gettempdir()).glob(f"{family}*")]
    left += [f"bridge {name}" for _, name in socket.if_nameindex() if name.startswith(family)]
    return left


def sweep() -> None:
    """Removes what machines have left whose owner was killed, and which have ended themselves since."""
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
                _ip("link", "delete", link)


def _has_ended(owner: int) -> bool:
    """Also all machines that the process had."""
    return not Path(f"/proc/{owner}").exists() and not any(
        what.startswith("process ") for what in left_behind(owner)
    )


@contextmanager
def undisturbed() -> Iterator[None]:
    """A second Ctrl-C waits until what the first one began has been cleaned up."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _watched(process: subprocess.Popen[bytes]) -> Iterator[int]:
    """A file descriptor that becomes readable when the process ends."""
    watch = os.pidfd_open(process.pid)
    try:
        yield watch
    finally:
        os.close(watch)


def _tied_to_us() -> list[str]:
    """Has the machine go down even if we are killed. (The kernel ties it to a thread, not to us all.)"""
    if threading.current_thread() is not threading.main_thread():
        return []
    return ["setpriv", "--pdeathsig=TERM", "--"]


def _children(pid: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


def _kill_inside(process: subprocess.Popen[str]) -> None:
    """Kills the command, then what is left of its group.

    Not the shell that waits for it: the command's remains would then fall to this computer's PID 1, which
    in a container may never reap, and a machine cannot end before all its processes are reaped.
    """
    while process.poll() is None:
        for command in _children(process.pid):
            with suppress(ProcessLookupError):
                os.kill(command, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.05)  # again, if it was not started yet
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()


def tail(text: str, lines: int = 30) -> str:
    return "\n".join(text.splitlines()[-lines:])


def _said(argv: Sequence[str], how: str, out: str, err: str) -> str:
    return "\n".join(filter(None, [f"{' '.join(argv)}: {how}", out.rstrip(), err.rstrip()]))
