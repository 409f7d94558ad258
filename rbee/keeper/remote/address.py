"""Where another machine finds the queen: an address is tried from there, before anything is changed there."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Sequence
from ipaddress import IPv6Address, ip_address
from pathlib import Path

from rbee import tls
from rbee.contracts import Tcp
from rbee.errors import BadInput, TimedOut, Unreachable
from rbee.keeper.fleet import parse_address
from rbee.keeper.reach import CA_REQUEST, PEM, joined
from rbee.keeper.remote.shell import CHUNK, Pipes
from rbee.keeper.remote.ssh import Ssh

REACH_TIMEOUT = 8.0
"""Seconds for the connection from there to the queen, and for her answer."""

OTHERS = 8
"""Addresses of this machine that are tried, where the one that ssh came from leads nowhere."""

MARK = "rbeectl is through"

TUNNEL = (
    f'exec 3<>"/dev/tcp/$0/$1" && printf "\\n{MARK}\\n" && {{ cat <&3 & cat >&3; kill "$!" 2>/dev/null; }}'
)
"""For bash, which every Debian has: a connection over there that is spoken through from here."""

HANG_UP = 20
"""Seconds after which it goes by itself over there."""


def find_queen(ssh: Ssh, tcp: Tcp, queen: str | None) -> tuple[str, int]:
    """Host and port at which she answers from there: as typed, or where ssh came from."""
    listens = [parse_address(one, field="listens") for one in tcp.listens]
    port = listens[0][1]
    if queen is not None:
        host, port = parse_address(queen, field="--queen")
        failure = try_from_there(ssh, host, port, tcp)
        failure = failure and f" at {joined(host, port)}: {failure}"
    elif _is_plain(host := ssh.own_address):
        failure = try_from_there(ssh, host, port, tcp)
        failure = failure and f" at {joined(host, port)}, where ssh came from: {failure}"
    else:
        failure = f": ssh came from {host}, which is not an address to hand over"
    if not failure:
        return host, port
    others = [one for listen in listens for one in _addresses(*listen) if one != (host, port)][:OTHERS]
    good = [one for one in others if not try_from_there(ssh, *one, tcp)]
    if good:
        cure = "\n".join(ssh.typed.at(joined(*one)) for one in good)
    else:
        if others:
            failure += f"; nor at {', '.join(joined(*one) for one in others)}"
        cure = f"With an address that {ssh.host} reaches: {ssh.typed.at(f'ADDRESS:{port}')}"
    raise Unreachable(f"{ssh.host} does not reach the queen{failure}", hint=cure)


def try_from_there(ssh: Ssh, host: str, port: int, tcp: Tcp) -> str:
    """Why she does not answer there, '' if she does: the queen whose keys these are, and nobody else."""
    bash = f"timeout {HANG_UP} bash -c '{TUNNEL}' {host} {port}"
    pipes = ssh.pipes(f"env LC_ALL=C {bash}")
    try:
        timeout = ssh.left(REACH_TIMEOUT)
        if not pipes.exchange(b"", lambda: f"\n{MARK}\n".encode() in pipes.out, timeout):
            return _why_not(ssh, host, pipes.err.decode(errors="replace").strip().splitlines())
        del pipes.out[: pipes.out.index(MARK.encode()) + len(MARK) + 1]
        if tls.fingerprint(_ca_of(pipes, timeout)) == tcp.fingerprint:
            return ""
    except TimedOut:
        return f"no answer within {REACH_TIMEOUT:g} s"
    except (ssl.SSLError, BadInput, Unreachable):
        pass
    finally:
        pipes.close()
    return "something else than this queen answers there"


def _why_not(ssh: Ssh, host: str, said: list[str]) -> str:
    """In bash's words, whose last line tells of a name that is not known that the argument is invalid."""
    for line in said:
        before, _, words = line.rpartition(": ")
        if before.endswith(f": {host}"):
            return f"the name {host} is not known on {ssh.host} ({words})"
    return said[-1].rpartition(": ")[2] if said else "bash there did not connect"


def _ca_of(pipes: Pipes, timeout: float) -> str:
    """The CA's certificate, in PEM, of the queen at the other end: TLS is spoken here, as a hive does."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    talk = tls.trusting_context().wrap_bio(incoming, outgoing, server_hostname=tls.QUEEN_NAME)
    answer = b""
    has_asked = False
    while not (found := PEM.search(answer)):
        try:
            if not has_asked:
                talk.do_handshake()
                talk.write(CA_REQUEST)
                has_asked = True
            answer += talk.read(CHUNK)
            if len(answer) > CHUNK:
                raise Unreachable("it answers, and not as a queen does")
        except ssl.SSLWantReadError:
            if not pipes.exchange(outgoing.read(), lambda: bool(pipes.out), timeout):
                raise Unreachable("it closed the connection") from None
            incoming.write(bytes(pipes.out))
            pipes.out.clear()
    return found[0].decode()


def _is_plain(address: str) -> bool:
    """No name, and not one that counts on a link alone, as fe80::1%eth0 does."""
    try:
        found = ip_address(address)
    except ValueError:
        return False
    return not (found.is_link_local or (isinstance(found, IPv6Address) and found.scope_id))


def _addresses(host: str, port: int) -> list[tuple[str, int]]:
    """Those of this machine's at which a listener is found that listens on `host`."""
    found = ip_address(host)
    if not found.is_unspecified:
        return [(host, port)]
    return [(one, port) for one in own_addresses() if found.version == 6 or ":" not in one]


def reachable_at(listens: Sequence[str]) -> list[str]:
    """HOST:PORT for each of this machine's addresses at which others find a queen who listens so.

    First the one from which this machine itself goes out.
    """
    places = [place for one in listens for place in _addresses(*parse_address(one, field="listens"))]
    first = _way_out()
    return [joined(*one) for one in sorted(dict.fromkeys(places), key=lambda one: one[0] != first)]


def _way_out() -> str | None:
    """This machine's address on the way to elsewhere, for which nothing is sent; None if there is no way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # RFC 5737: nobody has this address
            return str(probe.getsockname()[0])
        except OSError:
            return None


def own_addresses(proc: Path = Path("/proc"), *, are_plain: bool = True) -> list[str]:
    """The addresses of this machine as the kernel has them (proc(5)), IPv4 first.

    `are_plain` leaves those out that others cannot know: of the loopback, and of a link alone.
    """
    found: list[str] = []
    try:
        trie = (proc / "net/fib_trie").read_text()
        found += re.findall(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL", trie)
        for line in (proc / "net/if_inet6").read_text().splitlines():
            found.append(str(IPv6Address(bytes.fromhex(line.split()[0]))))
    except (OSError, ValueError, IndexError):
        pass  # IPv6 is off, or this is no such kernel: there is that much less to suggest
    told = dict.fromkeys(found)
    return [one for one in told if not are_plain or (_is_plain(one) and not ip_address(one).is_loopback)]
