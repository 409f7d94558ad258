"""Debian: put into a tree, its packages fetched for one, and installed in the machines booted from it."""

import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Collection
from pathlib import Path

from testbed.host import MachineError, tail
from testbed.machine import Machine
from testbed.processes import undisturbed

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
"""Raise it when trees are made in another way, here or in trees.py, so that cached ones are left behind."""


def bootstrap(suite: str, tree: Path) -> None:
    """Make the tree: a Debian with INCLUDES that boots as a machine."""
    _mmdebstrap(suite, tree)
    _furnish(tree, hostname=f"rbee-{suite}")
    if suite == "bookworm":
        _mend_polkit(tree)


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


def fetch_archive(
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


def fetch_kernel(base: Path, folder: Path) -> None:
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
