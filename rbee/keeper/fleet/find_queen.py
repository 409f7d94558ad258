"""Find the address at which another machine reaches the queen: tried from there, before any change."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from rbee import tls
from rbee.errors import BadInput, TimedOut, Unreachable
from rbee.keeper.fleet.address import addresses_of, is_plain, joined, parse_address
from rbee.keeper.fleet.reach import CA_REQUEST, PEM
from rbee.keeper.fleet.shell import CHUNK, Pipes
from rbee.keeper.fleet.ssh import Ssh
from rbee.text import shown_span

if TYPE_CHECKING:
    from rbee.wire.fleet import Tcp

REACH_TIMEOUT = 8.0
"""Seconds for the connection from there to the queen, and for its answer."""

OTHERS = 8
"""Addresses of this machine that are tried if the one that ssh came from does not work."""

MARK = "rbeectl is through"

TUNNEL = (
    f'exec 3<>"/dev/tcp/$0/$1" && printf "\\n{MARK}\\n" && {{ cat <&3 & cat >&3; kill "$!" 2>/dev/null; }}'
)
"""For bash, which every Debian has: a TCP connection from the other machine, relayed to here."""

HANG_UP = 20
"""Seconds after which the relay ends by itself."""


def find_queen(ssh: Ssh, tcp: Tcp, queen: str | None) -> tuple[str, int]:
    """Host and port at which the queen answers from there: as typed, or where ssh came from.

    Unreachable if it does not; its hint names other addresses that work.
    """
    listens = [parse_address(one, field="listens") for one in tcp.listens]
    port = listens[0][1]
    if queen is not None:
        host, port = parse_address(queen, field="--queen")
        failure = try_from_there(ssh, host, port, tcp)
        failure = failure and f" at {joined(host, port)}: {failure}"
    elif is_plain(host := ssh.own_address):
        failure = try_from_there(ssh, host, port, tcp)
        failure = failure and f" at {joined(host, port)}, where ssh came from: {failure}"
    else:
        failure = f": ssh came from {host}, which is not an address to hand over"
    if not failure:
        return host, port
    others = [one for listen in listens for one in addresses_of(*listen) if one != (host, port)][:OTHERS]
    good = [one for one in others if not try_from_there(ssh, *one, tcp)]
    if good:
        cure = "\n".join(ssh.typed.at(joined(*one)) for one in good)
    else:
        if others:
            failure += f"; nor at {', '.join(joined(*one) for one in others)}"
        cure = f"With an address that {ssh.host} reaches: {ssh.typed.at(f'ADDRESS:{port}')}"
    raise Unreachable(f"{ssh.host} does not reach the queen{failure}", hint=cure)


def try_from_there(ssh: Ssh, host: str, port: int, tcp: Tcp) -> str:
    """Why the queen with these keys does not answer at an address, tried from there; '' if it does."""
    bash = f"timeout {HANG_UP} bash -c '{TUNNEL}' {host} {port}"
    timeout = ssh.left(REACH_TIMEOUT)
    pipes = ssh.pipes(f"env LC_ALL=C {bash}")
    try:
        if not pipes.exchange(b"", lambda: f"\n{MARK}\n".encode() in pipes.out, timeout):
            return _why_not(ssh, host, pipes.err.decode(errors="replace").strip().splitlines())
        del pipes.out[: pipes.out.index(MARK.encode()) + len(MARK) + 1]
        if tls.fingerprint(_ca_of(pipes, timeout)) == tcp.fingerprint:
            return ""
    except TimedOut:
        return f"no answer within {shown_span(timeout)}"
    except (ssl.SSLError, BadInput, Unreachable):
        pass
    finally:
        pipes.close()
    return "another server answers there"


def _why_not(ssh: Ssh, host: str, err: list[str]) -> str:
    """The reason in bash's error; if the name is unknown, its last line says only 'Invalid argument'."""
    for line in err:
        before, _, reason = line.rpartition(": ")
        if before.endswith(f": {host}"):
            return f"the name {host} is not known on {ssh.host} ({reason})"
    return err[-1].rpartition(": ")[2] if err else "bash there did not connect"


def _ca_of(pipes: Pipes, timeout: float) -> str:
    """The certificate, in PEM, of the CA of the queen at the other end, asked for over TLS as a hive does."""
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
                raise Unreachable("it answers, but not as a queen does")
        except ssl.SSLWantReadError:
            if not pipes.exchange(outgoing.read(), lambda: bool(pipes.out), timeout):
                raise Unreachable("it closed the connection") from None
            incoming.write(bytes(pipes.out))
            pipes.out.clear()
    return found[0].decode()
