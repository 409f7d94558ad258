"""Installing rbee-hive on another machine, by the apt there."""

from __future__ import annotations

import re
import stat
from contextlib import suppress
from functools import partial
from pathlib import Path

from rbee.errors import BadInput, CommandFailed, RbeeError
from rbee.files import explained
from rbee.keeper.remote.ssh import Ssh
from rbee.narration import LOOKING_AT_HOST, WAITING_FOR_APT, Teller

INSTALL_TIMEOUT = 600.0
"""Seconds for apt on the other machine, and for the copying of each package."""

LOCK_TIMEOUT = 60
"""Seconds for which another apt may keep its lock: the one of the night's upgrades, say."""

LOCKED = re.compile(r"Could not get lock \S+(?: It is held by process ([0-9]+)(?: \((\S+?)\))?)?")
"""In what apt says, by LC_ALL=C."""


def find_packages(package: Path) -> list[Path]:
    """Of a folder those that a hive needs, or the one package."""
    with explained(package, "read", partial(BadInput, field="--install")):
        found = sorted(package.glob("*.deb")) if stat.S_ISDIR(package.stat().st_mode) else [package]
    debs = [one for one in found if one.name.startswith(("rbee-hive_", "python3-rbee_"))] or found
    if not debs:
        raise BadInput(f"there is no .deb in {package}", field="--install")
    return debs


def install(ssh: Ssh, teller: Teller, debs: list[Path]) -> None:
    """Copy them there, and have apt install them with what they need."""
    teller.narrate(LOOKING_AT_HOST, f"installing {', '.join(one.name for one in debs)} on {ssh.host}")
    folder = ssh.run("mktemp", "-d").strip()
    try:
        for deb in debs:
            with explained(deb, "read", partial(BadInput, field="--install")):
                content = deb.read_bytes()
            ssh.run("sh", "-c", 'cat >"$0"', f"{folder}/{deb.name}", content=content, timeout=INSTALL_TIMEOUT)
        ssh.run("chmod", "-R", "a+rX", folder)
        _apt_install(ssh, teller, [f"{folder}/{deb.name}" for deb in debs])
    finally:
        with suppress(RbeeError):
            ssh.run("rm", "-rf", "--", folder)


def _apt_install(ssh: Ssh, teller: Teller, paths: list[str]) -> None:
    """At once, or as soon as another apt has let go of its lock."""
    try:
        _apt_get(ssh, paths, lock_timeout=0)
    except CommandFailed as error:
        held = LOCKED.search(error.reason)
        if held is None:
            raise _failed(ssh, error) from error
    else:
        return
    holder = f"process {held[1]}" if held[1] else "another process"
    holder += f" ({held[2]})" if held[2] else ""
    told = f"apt on {ssh.host} is locked by {holder}; waiting up to {LOCK_TIMEOUT} s for it"
    teller.narrate(WAITING_FOR_APT, told)
    try:
        _apt_get(ssh, paths, lock_timeout=LOCK_TIMEOUT)
    except CommandFailed as error:
        raise _failed(ssh, error) from error


def _apt_get(ssh: Ssh, paths: list[str], *, lock_timeout: int) -> None:
    ssh.run_as_root(
        "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--quiet",
        "-o", f"DPkg::Lock::Timeout={lock_timeout}", *paths, timeout=INSTALL_TIMEOUT,
    )  # fmt: skip


def _failed(ssh: Ssh, error: CommandFailed) -> RbeeError:
    if LOCKED.search(error.reason):
        cure = f"When that has ended: {ssh.typed}"
    else:
        cure = f"ssh -t {ssh.target} sudo apt --fix-broken install; then {ssh.typed}"
    return RbeeError(f"apt on {ssh.host} failed ({error.exit_status}): {error.reason}", hint=cure)
