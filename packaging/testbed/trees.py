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
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from testbed.debian import (
    ARCHIVE,
    ARCHIVE_INSIDE,
    INCLUDES,
    KERNEL,
    KERNEL_PARTS,
    RECIPE,
    SOURCES,
    add_person,
    bootstrap,
    fetch_archive,
    fetch_kernel,
    install,
    install_from_archive,
)
from testbed.host import CHECKOUT, MachineError, tail, why_not
from testbed.kernel import Kernel
from testbed.machine import Machine
from testbed.processes import undisturbed

SUITES = ("bookworm", "trixie")

ENGINE = CHECKOUT / "packaging/testbed/engine"
"""The lock file of an engine, and its command line."""

ENGINE_INSIDE = "/usr/local/lib/llama-server"
"""Where a machine has the engine, if it is bound there: `bind_ro=[f"{trees.engine()}:{ENGINE_INSIDE}"]`."""

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
            bootstrap(suite, tree)

        name = f"base-{suite}-{_digest([RECIPE, suite, *INCLUDES])}"
        return self._get(name, build, family=f"base-{suite}-", keep=KEPT_BASES)

    def archive(self, suite: str) -> Path:
        """ARCHIVE and what it needs, as an apt repository: see debian.install_from_archive()."""
        base = self.base(suite)

        def build(directory: Path) -> None:
            self._say(f"📦 fetching what tests install beside rbee, {suite} (some seconds, once)...")
            fetch_archive(base, directory, ARCHIVE, SOURCES)

        name = f"archive-{suite}-{_digest([base.name, *ARCHIVE, *SOURCES])}"
        return self._get(name, build, family=f"archive-{suite}-", keep=KEPT_ARCHIVES)

    def with_debian(self, suite: str, packages: Collection[str]) -> Path:
        """The base with these Debian packages installed, and without rbee."""
        base = self.base(suite)

        def build(tree: Path) -> None:
            self._say(f"📦 installing {', '.join(packages)} on {suite} (some seconds, once)...")
            with tempfile.TemporaryDirectory(prefix="rbee-debian-") as scratch:
                archive = Path(scratch, "archive")
                fetch_archive(base, archive, packages)
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
            fetch_kernel(base, folder)

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


def _lock_file(tree: Path) -> Path:
    return tree.with_name(f".{tree.name}.lock")


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _copy_tree(source: Path, target: Path) -> None:
    subprocess.run(["cp", "--archive", "--reflink=auto", "--", source, target], check=True)


def _forget_journal(tree: Path) -> None:
    """The story of an installation is not the story of the machines booted from it."""
    shutil.rmtree(tree / "var/log/journal", ignore_errors=True)
    (tree / "var/log/journal").mkdir()


def _remove_tree(tree: Path) -> None:
    if tree.exists():
        subprocess.run(["rm", "--recursive", "--force", "--one-file-system", "--", tree], check=True)


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
