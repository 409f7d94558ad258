"""Is the machine that a host name or ssh leads to this one?"""

from __future__ import annotations

import socket
from ipaddress import ip_address
from pathlib import Path

from rbee.keeper.fleet.address import own_addresses
from rbee.keeper.fleet.ssh import Ssh
from rbee.wire.types import LOCALHOST

IDENTITY = ("/etc/machine-id", "/proc/sys/kernel/random/boot_id")
"""A copied image has the same machine-id, and a container the boot id of its host, but not both."""


def is_here(host: str) -> bool:
    """Is it this machine, by its name or one of its addresses? False for an alias of ssh's configuration.

    A name is looked up only if its first part is that of this machine's name.
    """
    name = host.strip("[]").partition("%")[0].removesuffix(".").lower()
    try:
        address = ip_address(name)
    except ValueError:
        pass
    else:
        address = getattr(address, "ipv4_mapped", None) or address
        own_ones = own_addresses(are_plain=False)
        return address.is_loopback or address.is_unspecified or str(address) in own_ones
    own = socket.gethostname().removesuffix(".").lower()
    if name in (LOCALHOST, own, own.partition(".")[0]):
        return True
    first, *_ = name.split(".")
    is_like_own = first in (LOCALHOST, "ip6-localhost", "ip6-loopback", own.partition(".")[0])
    return is_like_own and any(map(is_here, _addresses(name)))


def _addresses(name: str) -> list[str]:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(one[4][0]) for one in found]


def is_same_machine(ssh: Ssh) -> bool:
    """Does this ssh connection lead back to this machine?"""
    there = ssh.run("sh", "-c", f"cat {' '.join(IDENTITY)} 2>/dev/null || :").split()
    try:
        here = [Path(one).read_text().strip() for one in IDENTITY]
    except OSError:
        return False
    return there == here
