"""Where another machine finds the queen: an address is tried from there, before anything is changed there."""

from __future__ import annotations

import ssl

from rbee import tls
from rbee.errors import BadInput, TimedOut, Unreachable
from rbee.keeper.fleet.address import addresses_of, is_plain, joined, parse_address
from rbee.keeper.fleet.reach import CA_REQUEST, PEM
from rbee.keeper.fleet.shell import CHUNK, Pipes
from rbee.keeper.fleet.ssh import Ssh
from rbee.wire.fleet import Tcp

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
