"""Install rbee-hive on another machine, with apt."""

from __future__ import annotations

import re
import stat
from contextlib import suppress
from functools import partial
from pathlib import Path

from rbee.errors import BadInput, CommandFailed, RbeeError
from rbee.files import explained
from rbee.keeper.fleet.ssh import Ssh
from rbee.narration import LOOKING_AT_HOST, WAITING_FOR_APT, Teller
from rbee.scope import Scope

INSTALL_TIMEOUT = 600.0
"""Seconds for apt on the other machine, and for copying each package."""

LOCK_TIMEOUT = 60
"""Seconds to wait for another apt to release its lock, such as unattended-upgrades."""

LOCKED = re.compile(r"Could not get lock \S+(?: It is held by process ([0-9]+)(?: \((\S+?)\))?)?")
"""In apt's error message, with LC_ALL=C."""

UNSATISFIED = re.compile(r"dependencies|held broken packages")
"""The same of a package whose dependencies are not to be had, of apt 2.6 and 3.0."""


def find_packages(package: Path, scope: Scope) -> list[Path]:
    """The packages to install: of a folder, those of a hive and rbeectl's if present; or the one file.

    BadInput if rbee-hive is not among them.
    """
    with explained(package, "read", partial(BadInput, field="--install")):
        is_folder = stat.S_ISDIR(package.stat().st_mode)
        found = sorted(package.glob("*.deb")) if is_folder else [package]
    if not found:
        raise BadInput(f"there is no .deb in {package}", field="--install")
    ours = {one: one.name.partition("_")[0] for one in found}
    if "rbee-hive" in ours.values():
        return [one for one, name in ours.items() if name in ("python3-rbee", "rbee-hive", "rbeectl")]
    if is_folder or set(ours.values()) & {"python3-rbee", "rbee", "rbee-queen", "rbeectl"}:
        raise BadInput(
            f"{package} does not have what makes a hive: the packages rbee-hive and python3-rbee",
            hint=f"{scope.rbeectl('add-hive HOST --install FOLDER')}, with both in it",
            field="--install",
        )
    return found


def install(ssh: Ssh, teller: Teller, debs: list[Path]) -> None:
    """Copy packages to the machine, and have apt install them with their dependencies."""
    teller.narrate(LOOKING_AT_HOST, f"installing {', '.join(one.name for one in debs)} on {ssh.host}")
    folder = ssh.run("mktemp", "-d").strip()
    try:
        for deb in debs:
            with explained(deb, "read", partial(BadInput, field="--install")):
                content = deb.read_bytes()
            ssh.run("sh", "-c", 'cat >"$0"', f"{folder}/{deb.name}", content=content, timeout=INSTALL_TIMEOUT)
        ssh.run("chmod", "-R", "a+rX", folder)
        hive = [f"{folder}/{deb.name}" for deb in debs if not _is_command(deb)]
        _apt_install(ssh, teller, hive)
        # In a run of its own, as rbeectl recommends a queen, which apt may find in its archive.
        if command := [f"{folder}/{deb.name}" for deb in debs if _is_command(deb)]:
            _apt_install(ssh, teller, ["--no-install-recommends", *command])
    finally:
        with suppress(RbeeError):
            ssh.run("rm", "-rf", "--", folder)


def _is_command(deb: Path) -> bool:
    return deb.name.startswith("rbeectl_")


def _apt_install(ssh: Ssh, teller: Teller, paths: list[str]) -> None:
    """Run apt-get install, again if another apt holds the lock; `paths` may begin with an option."""
    try:
        _apt_get(ssh, paths, lock_timeout=0)
    except CommandFailed as error:
        held = LOCKED.search(error.reason)
        if held is None:
            raise _failed(ssh, paths, error) from error
    else:
        return
    holder = f"process {held[1]}" if held[1] else "another process"
    holder += f" ({held[2]})" if held[2] else ""
    text = f"apt on {ssh.host} is locked by {holder}; waiting up to {LOCK_TIMEOUT} s for it"
    teller.narrate(WAITING_FOR_APT, text)
    try:
        _apt_get(ssh, paths, lock_timeout=LOCK_TIMEOUT)
    except CommandFailed as error:
        raise _failed(ssh, paths, error) from error


def _apt_get(ssh: Ssh, paths: list[str], *, lock_timeout: int) -> None:
    ssh.run_as_root(
        "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--quiet",
        "-o", f"DPkg::Lock::Timeout={lock_timeout}", *paths, timeout=INSTALL_TIMEOUT,
    )  # fmt: skip


def _failed(ssh: Ssh, paths: list[str], error: CommandFailed) -> RbeeError:
    if LOCKED.search(error.reason):
        cure = f"When that has ended: {ssh.typed}"
    elif not paths[1:] and UNSATISFIED.search(error.reason):
        cure = f"With the package python3-rbee in the folder, too: {ssh.typed.installing()}"
    else:
        cure = f"ssh -t {ssh.target} sudo apt --fix-broken install; then {ssh.typed}"
    return RbeeError(f"apt on {ssh.host} failed ({error.exit_status}): {error.reason}", hint=cure)
