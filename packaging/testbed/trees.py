"""The trees that machines boot: directories with a Debian in them, built once and kept.

    with Trees(Trees.default_cache(), say=print) as trees:
        with Machine(trees.installed("bookworm", debs)) as machine:
            ...

A base tree has all that rbee depends on; an installed tree is a copy of one, with rbee.
"""

import argparse
import fcntl
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from testbed.host import CHECKOUT, MachineError, tail, why_not
from testbed.kernel import Kernel
from testbed.machine import Machine
from testbed.processes import undisturbed

SUITES = ("bookworm", "trixie")

INCLUDES = (
    # What makes it a machine.
    "dbus",
    "libnss-systemd",
    "libpam-systemd",
    "polkitd",
    "systemd",
    "systemd-sysv",
    # What rbee depends on, so that installing it needs no network.
    "python3",
    "python3-click",
    "python3-httptools",
    "python3-httpcore",
    "python3-httpx",
    "python3-prometheus-client",
    "python3-psutil",  # 0.4.0 needed it
    "python3-pystemd",
    "python3-sdnotify",
    "python3-starlette",
    "python3-uvicorn",
    # What people and tests use there.
    "adduser",
    "autopkgtest",
    "bash-completion",
    "bsdutils",
    "ca-certificates",
    "curl",
    "faketime",
    "iproute2",
    "less",
    "libgomp1",  # of the engine
    "man-db",
    "nftables",
    "openssh-server",
    "pci.ids",
    "procps",
    "python3-cryptography",
    "sqlite3",
    "strace",
    "sudo",
    "util-linux",
)

ARCHIVE = (
    # What people install beside rbee, for tests that install it as they do.
    "fish",
    "hwdata",
    "libnss-extrausers",
    "locales",
    "lxcfs",
    "pciutils",
    "prometheus",
    "prometheus-node-exporter",
    "sshfs",
    "zsh",
)

SOURCES = ("util-linux",)
"""Packages whose source the archive has: util-linux tests lscpu on /proc and /sys of real machines."""

KERNEL = "linux-image-amd64"

KERNEL_PARTS = (
    "*/boot/vmlinuz-*",
    "*/modules.builtin",
    *(f"*/modules/*/kernel/drivers/{folder}" for folder in ("acpi", "char", "gpu", "i2c")),
    *(f"*/modules/*/kernel/drivers/{folder}" for folder in ("media/cec", "media/rc")),
    *(f"*/modules/*/kernel/drivers/{folder}" for folder in ("platform", "video", "virtio")),
    *(f"*/modules/*/kernel/{folder}" for folder in ("fs", "lib", "net/9p")),
)
"""What is kept of it: the modules for its root, and for graphics cards."""

ENGINE = CHECKOUT / "packaging/testbed/engine"
"""The lock file of an engine, and its command line."""

ENGINE_INSIDE = "/usr/local/lib/llama-server"
"""Where a machine has the engine, if it is bound there: `bind_ro=[f"{trees.engine()}:{ENGINE_INSIDE}"]`."""

ARCHIVE_INSIDE = "/srv/archive"
"""Where a machine has the archive, if it is bound there."""

MASKED = (
    # Nobody is asked for a password there, and each of these watches with an inotify instance, of which
    # this computer has about a hundred for all machines.
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    # A boot takes a fourth less of a processor without these, and is otherwise the same: systemd-nspawn makes
    # /dev, lets nobody set what sysctl.d names, and nobody reads utmp.
    "dev-hugepages.mount",
    "systemd-sysctl.service",
    "systemd-tmpfiles-setup-dev-early.service",
    "systemd-tmpfiles-setup-dev.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
    # Nor does any machine live for a day.
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "man-db.timer",
    "systemd-tmpfiles-clean.timer",
)
"""Units that no machine starts."""

RECIPE = "9"
"""Raise it when a tree is made in another way, so that the cached ones are left behind."""

KEPT_BASES = 2
KEPT_INSTALLED = 3
KEPT_PREVIOUS = 2
KEPT_ARCHIVES = 2
KEPT_KERNELS = 1
KEPT_DEBIAN = 1
KEPT_ENGINES = 1

PREVIOUS = "52eedb01ad098c04d51cf90e656a958ed022850c"
"""The commit of the release before this one, from which people upgrade; its packages are built anew."""

GIT = ("git", "-c", "safe.directory=*", "-C", str(CHECKOUT))

Say = Callable[[str], None]


class NoHistory(MachineError):
    """The checkout does not go back to the release before."""


class Trees:
    """The trees in a cache directory. While the context is entered, no other run prunes what it uses."""

    def __init__(self, cache: Path, *, say: Say = lambda line: None) -> None:
        self._cache = cache
        self._say = say
        self._in_use: dict[str, IO[bytes]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for lock in self._in_use.values():
            lock.close()
        self._in_use.clear()

    @staticmethod
    def default_cache() -> Path:
        """The folder of the cached trees."""
        return Path(os.environ.get("RBEE_CACHE") or "/var/cache/rbee-trees")

    def base(self, suite: str) -> Path:
        """A Debian with everything that rbee depends on, but not rbee."""

        def build(tree: Path) -> None:
            self._say(f"📦 building a Debian tree, {suite} (about a minute, once)...")
            _mmdebstrap(suite, tree)
            _furnish(tree, hostname=f"rbee-{suite}")
            if suite == "bookworm":
                _mend_polkit(tree)

        name = f"base-{suite}-{_digest([RECIPE, suite, *INCLUDES])}"
        return self._get(name, build, family=f"base-{suite}-", keep=KEPT_BASES)

    def archive(self, suite: str) -> Path:
        """ARCHIVE and what it needs, as an apt repository: see install_from_archive()."""
        base = self.base(suite)

        def build(directory: Path) -> None:
            self._say(f"📦 fetching what tests install beside rbee, {suite} (some seconds, once)...")
            _fetch_archive(base, directory, ARCHIVE, SOURCES)

        name = f"archive-{suite}-{_digest([base.name, *ARCHIVE, *SOURCES])}"
        return self._get(name, build, family=f"archive-{suite}-", keep=KEPT_ARCHIVES)

    def with_debian(self, suite: str, packages: Collection[str]) -> Path:
        """The base with these Debian packages installed, and without rbee."""
        base = self.base(suite)

        def build(tree: Path) -> None:
            self._say(f"📦 installing {', '.join(packages)} on {suite} (some seconds, once)...")
            with tempfile.TemporaryDirectory(prefix="rbee-debian-") as scratch:
                archive = Path(scratch, "archive")
                _fetch_archive(base, archive, packages)
                _copy_tree(base, tree)
                with Machine(tree, volatile=False, bind_ro=[f"{archive}:{ARCHIVE_INSIDE}"]) as machine:
                    install_from_archive(machine, *packages)
                    machine.poweroff()
            _forget_journal(tree)

        name = f"debian-{suite}-{_digest([base.name, *packages])}"
        return self._get(name, build, family=f"debian-{suite}-", keep=KEPT_DEBIAN)

    def kernel(self, suite: str) -> Kernel:
        """The suite's own kernel, for an emulated machine."""
        base = self.base(suite)

        def build(folder: Path) -> None:
            self._say(f"📦 fetching a kernel to emulate, {suite} (some seconds, once)...")
            _fetch_kernel(base, folder)

        name = f"kernel-{suite}-{_digest([base.name, KERNEL, *KERNEL_PARTS])}"
        return Kernel(self._get(name, build, family=f"kernel-{suite}-", keep=KEPT_KERNELS))

    def engine(self) -> Path:
        """A folder with an inference engine, for use_engine()."""

        def build(folder: Path) -> None:
            self._say("📦 fetching an inference engine (some seconds, once)...")
            with tempfile.TemporaryDirectory(prefix="rbee-pip-") as scratch:
                _run([sys.executable, "-m", "venv", scratch])
                lock = ENGINE / "engine.lock"
                options = ["--no-deps", "--require-hashes", f"--requirement={lock}", f"--target={folder}"]
                _run([f"{scratch}/bin/python", "-m", "pip", "install", "--only-binary=:all:", *options])
            shutil.copy(ENGINE / "llama-server", folder)

        contents = [(ENGINE / name).read_text() for name in ("engine.lock", "llama-server")]
        return self._get(f"engine-{_digest(contents)}", build, family="engine-", keep=KEPT_ENGINES)

    def previous_debs(self) -> list[Path]:
        """The packages of the release before, built from the checkout's history as they were then."""
        if not _has_commit(PREVIOUS):
            raise NoHistory(
                f"The release before this one, commit {PREVIOUS[:7]}, is not in this checkout's history. "
                "Get it with: git fetch --unshallow"
            )

        def build(directory: Path) -> None:
            self._say("🔨 building the packages of the release before (some seconds, once)...")
            with tempfile.TemporaryDirectory(prefix="rbee-previous-") as source:
                archive = subprocess.run([*GIT, "archive", PREVIOUS], stdout=subprocess.PIPE, check=True)
                subprocess.run(["tar", "--extract", "--directory", source], input=archive.stdout, check=True)
                built = subprocess.run(
                    [f"{source}/packaging/deb", directory],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            if built.returncode:
                raise MachineError(f"The release before could not be built:\n{tail(built.stdout)}")

        debs = self._get(f"debs-{PREVIOUS[:16]}", build, family="debs-", keep=KEPT_PREVIOUS)
        return sorted(debs.glob("*.deb"))

    def previous(self, suite: str) -> Path:
        """As installed(), with the release before; newer trees of this release do not displace it."""
        return self._installed(suite, self.previous_debs(), family="previous", people=("ada", "mallory"))

    def installed(self, suite: str, debs: Collection[Path]) -> Path:
        """The base with these packages installed as a person does it, in a booted machine.

        It has two users: ada, who is in group rbee, and mallory, who is not.
        """
        return self._installed(suite, debs, family="installed", people=("ada", "mallory"))

    def hive(self, suite: str, debs: Collection[Path]) -> Path:
        """The base with the packages of a hive and rbeectl, and without users."""
        wanted = [deb for deb in debs if deb.name.startswith(("python3-rbee_", "rbee-hive_", "rbeectl_"))]
        return self._installed(suite, wanted, family="hive", people=())

    def _installed(self, suite: str, debs: Collection[Path], *, family: str, people: Collection[str]) -> Path:
        if not debs:
            raise MachineError("There are no packages to install. Build them with packaging/deb.")
        base = self.base(suite)

        def build(tree: Path) -> None:
            self._say(f"📦 installing rbee on {suite} (some seconds, once a build)...")
            _copy_tree(base, tree)
            with Machine(tree, volatile=False) as machine:
                install(machine, debs)
                for person in people:
                    add_person(machine, person)
                if "ada" in people:
                    machine.run("adduser", "ada", "rbee")
                machine.poweroff()
            _forget_journal(tree)

        contents = [hashlib.sha256(deb.read_bytes()).hexdigest() for deb in sorted(debs)]
        name = f"{family}-{suite}-{_digest([base.name, *contents])}"
        return self._get(name, build, family=f"{family}-{suite}-", keep=KEPT_INSTALLED)

    def _get(self, name: str, build: Callable[[Path], None], *, family: str, keep: int) -> Path:
        tree = self._cache / name
        if name not in self._in_use:
            self._cache.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._in_use[name] = self._make(tree, build)
            self._prune(family, keep)
        return tree

    def _make(self, tree: Path, build: Callable[[Path], None]) -> IO[bytes]:
        """Builds the tree unless it is there; returns the open file that keeps it from being pruned."""
        with ExitStack() as stack:
            lock = stack.enter_context(_lock_file(tree).open("ab"))
            self._flock(lock, fcntl.LOCK_SH, tree.name)
            # flock(2) lets go before it takes another lock, so look again after each.
            while not tree.exists():
                self._flock(lock, fcntl.LOCK_EX, tree.name)
                if not tree.exists():
                    _build_aside(tree, build)
                self._flock(lock, fcntl.LOCK_SH, tree.name)
            os.utime(tree)
            stack.pop_all()
            return lock

    def _flock(self, lock: IO[bytes], kind: int, name: str) -> None:
        try:
            fcntl.flock(lock, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            self._say(f"⏳ waiting for another run that builds {name}...")
            fcntl.flock(lock, kind)

    def _prune(self, family: str, keep: int) -> None:
        trees = [tree for tree in self._cache.glob(f"{family}*") if tree.is_dir()]
        trees.sort(key=lambda tree: tree.stat().st_mtime, reverse=True)
        for tree in trees[keep:]:
            # What is being built goes by the lock of what it will be.
            with _lock_file(tree.with_suffix("")).open("ab") as lock:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                _remove_tree(tree)


def use_engine(machine: Machine) -> None:
    """Install /usr/bin/llama-server in a machine that has the engine at ENGINE_INSIDE."""
    machine.run("ln", "--symbolic", "--force", f"{ENGINE_INSIDE}/llama-server", "/usr/bin/llama-server")


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise MachineError(f"{' '.join(command)} failed:\n{tail(done.stdout)}")


def _has_commit(commit: str) -> bool:
    try:
        found = subprocess.run([*GIT, "cat-file", "-e", f"{commit}^{{commit}}"], stderr=subprocess.DEVNULL)
    except FileNotFoundError:
        return False
    return found.returncode == 0


def _build_aside(tree: Path, build: Callable[[Path], None]) -> None:
    """A build that breaks never becomes the tree."""
    part = tree.with_suffix(".part")
    _remove_tree(part)
    try:
        build(part)
        part.rename(tree)
    except BaseException:
        with undisturbed():
            _remove_tree(part)
        raise


def _fetch_archive(
    base: Path, archive: Path, packages: Collection[str], sources: Collection[str] = ()
) -> None:
    """Fetch into `archive` those of the packages that a base lacks, and the source packages `sources`."""
    archive.mkdir(mode=0o755)
    commands = [["install", "--download-only", *packages]]
    if sources:
        commands.append(["source", "--download-only", *sources])
    with tempfile.TemporaryDirectory(prefix="rbee-archive-") as scratch:
        _apt(base, Path(scratch), *commands)
        for fetched in (*Path(scratch, "archives").glob("*.deb"), *Path(scratch).glob("*.orig.tar.*")):
            shutil.move(fetched, archive)
    with (archive / "Packages").open("wb") as index:
        subprocess.run(
            ["dpkg-scanpackages", "--multiversion", "."], cwd=archive, stdout=index,
            stderr=subprocess.DEVNULL, check=True,
        )  # fmt: skip
    (archive / "sources.list").write_text(f"deb [trusted=yes] file:{ARCHIVE_INSIDE} ./\n")


def _fetch_kernel(base: Path, folder: Path) -> None:
    """The kernel that Debian installs on a PC, unpacked, with those modules that an emulated one may need."""
    with tempfile.TemporaryDirectory(prefix="rbee-kernel-") as scratch:
        _apt(base, Path(scratch), ["install", "--download-only", "--no-install-recommends", KERNEL])
        [package] = Path(scratch, "archives").glob("linux-image-[0-9]*.deb")
        folder.mkdir()
        unpack = ["tar", "--extract", "--directory", str(folder), "--wildcards", *KERNEL_PARTS]
        with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE) as packed:
            subprocess.run(unpack, stdin=packed.stdout, check=True)


def _apt(base: Path, scratch: Path, *commands: list[str]) -> None:
    """Runs this computer's apt-get in the scratch folder, with the base's status and lists of its own."""
    for folder in ("lists/partial", "archives/partial"):
        Path(scratch, folder).mkdir(parents=True)
    settings = {
        "Debug::NoLocking": "1",
        "Dir::Cache::archives": f"{scratch}/archives",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Dir::Etc::preferencesparts": "/dev/null",
        "Dir::Etc::sourcelist": f"{scratch}/sources.list",
        "Dir::Etc::sourceparts": "/dev/null",
        "Dir::State::extended_states": "/dev/null",
        "Dir::State::lists": f"{scratch}/lists",
        "Dir::State::status": f"{base}/var/lib/dpkg/status",
        # Not _apt, who may read neither the scratch folder nor the base.
        "APT::Sandbox::User": "root",
    }
    binary = (base / "etc/apt/sources.list").read_text()
    source = "".join(f"deb-src{line.removeprefix('deb')}" for line in binary.splitlines(keepends=True))
    Path(scratch, "sources.list").write_text(binary + source)
    apt = ["apt-get", "--quiet", "--yes", *(f"--option={name}={settings[name]}" for name in settings)]
    for command in (["update"], *commands):
        done = subprocess.run(
            [*apt, *command], cwd=scratch, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if done.returncode:
            raise MachineError(f"apt-get {command[0]} failed:\n{tail(done.stdout)}")


def _lock_file(tree: Path) -> Path:
    return tree.with_name(f".{tree.name}.lock")


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _mmdebstrap(suite: str, tree: Path) -> None:
    # In namespaces of its own: what it mounts and starts ends with it, however it ends.
    command = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]
    command += ["mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(INCLUDES)}", suite, str(tree)]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        umask=0o022,
    ) as builder:
        assert builder.stdout
        try:
            words = builder.stdout.read()
        except BaseException:
            with undisturbed():
                builder.kill()
                builder.stdout.read()  # ends when the last of its processes has
            raise
    if builder.returncode:
        raise MachineError(f"mmdebstrap {suite} failed:\n{tail(words)}")


def _furnish(tree: Path, *, hostname: str) -> None:
    (tree / "etc/hostname").write_text(f"{hostname}\n")
    (tree / "etc/hosts").write_text(f"127.0.0.1\tlocalhost\n127.0.1.1\t{hostname}\n::1\tlocalhost\n")
    # A machine without an ID takes each boot for its first and enables all units by preset, which would
    # hide a package that does not enable its own.
    (tree / "etc/machine-id").write_text(f"{secrets.token_hex(16)}\n")
    (tree / "etc/dpkg/dpkg.cfg.d/unsafe-io").write_text("force-unsafe-io\n")
    # Only a test that needs ssh starts it, after ssh-keygen -A: no boot waits for it, and no two machines
    # from this tree have the same keys.
    (tree / "etc/systemd/system/multi-user.target.wants/ssh.service").unlink(missing_ok=True)
    for key in (tree / "etc/ssh").glob("ssh_host_*_key*"):
        key.unlink()
    for unit in MASKED:
        (tree / "etc/systemd/system" / unit).symlink_to("/dev/null")
    # There is nothing for them to find, no disk, no terminal and no SysV script, and each boot would wait.
    masks = tree / "etc/systemd/system-generators"
    masks.mkdir()
    for generator in (tree / "usr/lib/systemd/system-generators").iterdir():
        (masks / generator.name).symlink_to("/dev/null")
    # D-Bus starts it once somebody logs in. Its folder is there then as before: tests compare all files.
    (tree / "usr/lib/systemd/system/multi-user.target.wants/systemd-logind.service").unlink()
    (tree / "var/lib/systemd/linger").mkdir(mode=0o755, exist_ok=True)
    # Each installation would index the manual pages anew.
    (tree / "var/lib/man-db/auto-update").unlink(missing_ok=True)


def _mend_polkit(tree: Path) -> None:
    """polkit 122 of Debian 12 runs rules in a thread. Once in some thousand times this signals its end before
    polkit waits for that, and polkit answers 15 s late. On one CPU, first in first out, the thread runs
    only once polkit waits. operators.md tells people the same; 126 of Debian 13 is without that fault."""
    folder = tree / "etc/systemd/system/polkit.service.d"
    folder.mkdir(parents=True)
    (folder / "one-cpu.conf").write_text("[Service]\nCPUAffinity=0\nCPUSchedulingPolicy=fifo\n")


def _copy_tree(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--archive", "--reflink=auto", "--", source, target], check=True)


def _forget_journal(tree: Path) -> None:
    """The story of an installation is not the story of the machines booted from it."""
    shutil.rmtree(tree / "var/log/journal", ignore_errors=True)
    (tree / "var/log/journal").mkdir()


def _remove_tree(tree: Path) -> None:
    if tree.exists():
        subprocess.run(["rm", "--recursive", "--force", "--one-file-system", "--", tree], check=True)


# -- what people do on a machine --------------------------------------------------------------------------


def install(machine: Machine, debs: Collection[Path], *options: str) -> str:
    """apt install ./*.deb, as in the README; returns apt's output."""
    for deb in debs:
        machine.copy_in(deb, f"/root/debs/{deb.name}")
    try:
        command = ["sh", "-c", 'cd /root/debs && exec apt-get install --yes "$@" ./*.deb', "sh", *options]
        return machine.run(*command, env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=300).stdout
    finally:
        machine.run("rm", "-r", "/root/debs")


def install_from_archive(machine: Machine, *packages: str, recommends: bool = False) -> str:
    """apt-get install in a machine that has the archive bound to ARCHIVE_INSIDE; returns apt's output."""
    sources = (
        f"--option=Dir::Etc::sourcelist={ARCHIVE_INSIDE}/sources.list",
        "--option=Dir::Etc::sourceparts=/dev/null",
    )
    machine.run("apt-get", *sources, "update", timeout=60)
    return machine.run(
        "apt-get", *sources, "install", "--yes", f"--{'' if recommends else 'no-'}install-recommends",
        *packages, env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=300,
    ).stdout  # fmt: skip


def add_person(machine: Machine, name: str) -> None:
    """Adds a user with a home and a shell."""
    machine.run("adduser", "--quiet", "--disabled-password", "--gecos", "", name)


def main() -> int:
    """Prepares the trees that the system tests boot, so that the tests themselves are quick."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("debs", type=Path, help="directory with the built packages")
    parser.add_argument("suite", choices=SUITES, nargs="+")
    arguments = parser.parse_args()
    if reason := why_not():
        print(reason, file=sys.stderr)
        return 1
    try:
        with Trees(Trees.default_cache(), say=lambda line: print(line, flush=True)) as trees:
            for suite in arguments.suite:
                trees.installed(suite, sorted(arguments.debs.glob("*.deb")))
                trees.archive(suite)
                trees.kernel(suite)
                with suppress(NoHistory):
                    trees.previous(suite)
    except MachineError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
