"""A queen's address as it is typed, and the addresses of this machine at which others reach its queen."""

from __future__ import annotations

import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from rbee.errors import BadInput
from rbee.wire.codec import decode
from rbee.wire.types import QUEEN_PORT, Host


def parse_address(text: str, *, field: str, port: int = QUEEN_PORT) -> tuple[str, int]:
    """Parse HOST[:PORT] or [ADDRESS][:PORT]; `port` is the default. BadInput names `field`."""
    found = re.fullmatch(r"(?:\[([0-9A-Fa-f:.]+)\]|([^\[\]:]+))(?::([0-9]{1,5}))?", text)
    try:
        host = decode(Host, (found[1] or found[2]) if found else "")
    except BadInput as error:
        raise BadInput(f"{field} must {_address_wanted(text)}", field=field) from error
    port = int(found[3] or port) if found else 0
    if not 1 <= port <= 65535:
        raise BadInput(f"{field} must have a port from 1 to 65535", field=field)
    return host, port


def _address_wanted(text: str) -> str:
    """What should have been typed instead of an address that is not valid."""
    with suppress(ValueError):
        return f"have an IPv6 address in brackets: [{IPv6Address(text)}]:{QUEEN_PORT}"
    found = re.fullmatch(r"(.*:.*):([0-9]{1,5})", text)
    with suppress(ValueError):
        if found:
            return f"have an IPv6 address in brackets: [{IPv6Address(found[1])}]:{found[2]}"
    wanted = "be HOST:PORT, such as queen.example:8500 or [fd00::1]:8500"
    if text.startswith(":"):
        return f"{wanted}, and has no host; all addresses are 0.0.0.0 or [::]"
    return wanted


def joined(host: str, port: int) -> str:
    """HOST:PORT, as parse_address() reads it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_plain(address: str) -> bool:
    """Is it an IP address that is valid beyond one link, unlike fe80::1%eth0? False for a name."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return not (found.is_link_local or (isinstance(found, IPv6Address) and found.scope_id))


def addresses_of(host: str, port: int) -> list[tuple[str, int]]:
    """The addresses of this machine at which a socket is reached that listens on `host`."""
    found = ip_address(host)
    if not found.is_unspecified:
        return [(host, port)]
    return [(one, port) for one in own_addresses() if found.version == 6 or ":" not in one]


def reachable_at(listens: Sequence[str]) -> list[str]:
    """HOST:PORT for each address of this machine at which others reach a queen that listens on these.

    First the address that this machine uses for outgoing connections.
    """
    reached = [pair for one in listens for pair in addresses_of(*parse_address(one, field="listens"))]
    first = _way_out()
    return [joined(*one) for one in sorted(dict.fromkeys(reached), key=lambda one: one[0] != first)]


def _way_out() -> str | None:
    """This machine's address on the default route; None if there is none. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # RFC 5737: nobody has this address
            return str(probe.getsockname()[0])
        except OSError:
            return None


def own_addresses(proc: Path = Path("/proc"), *, are_plain: bool = True) -> list[str]:
    """The addresses of this machine, from proc(5), IPv4 first.

    `are_plain` leaves out those that other machines cannot use: loopback and link-local addresses.
    """
    found: list[str] = []
    try:
        trie = (proc / "net/fib_trie").read_text()
        found += re.findall(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL", trie)
        for line in (proc / "net/if_inet6").read_text().splitlines():
            found.append(str(IPv6Address(bytes.fromhex(line.split()[0]))))
    except (OSError, ValueError, IndexError):
        pass  # IPv6 is off, or /proc has another format: there are fewer addresses to suggest
    unique = dict.fromkeys(found)
    return [one for one in unique if not are_plain or (is_plain(one) and not ip_address(one).is_loopback)]
