"""Open the queen to other machines or close it; the address is a drop-in of its TCP socket."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from ipaddress import ip_address

from rbee.errors import BadInput, NotPermitted, RbeeError, UnitFailed
from rbee.files import FORBIDDEN
from rbee.keeper.dropin import Dropin
from rbee.keeper.fleet.address import joined, parse_address
from rbee.keeper.queen.queen import Queen
from rbee.narration import CLOSING_TCP, OPENING_TCP
from rbee.scope import QUEEN_UNIT, TCP_SOCKET_UNIT, Scope
from rbee.systemd.bus import Bus
from rbee.wire.fleet import SetTcp, Tcp
from rbee.wire.routes import QueenRoutes
from rbee.wire.types import QUEEN_PORT

STOP_TIMEOUT = 20.0

START_TIMEOUT = 35.0

DROPIN_CONTENT = "# By rbeectl tcp enable --listen.\n[Socket]\nListenStream=\nListenStream=%s\n"


def set_tcp(queen: Queen, *, is_open: bool, address: str | None = None) -> Tcp:
    """Open the queen to other machines, from now on at `address` if one is given, or close it.

    If that fails, the queen is made to listen as before; a UnitFailed says whether it does.
    """
    before: Tcp = queen.ask(QueenRoutes.TCP)
    old = new = None
    if address is not None:
        old, new = _dropin(queen.work.scope).read(), (DROPIN_CONTENT % address).encode()
    try:
        if new != old:
            _dropin(queen.work.scope).put(queen.work.bus, new)
        return _switch_tcp(queen, is_open=is_open, moved=new != old)
    except BaseException as error:
        outcome = _go_back(queen, before, dropin=old, moved=new != old)
        if isinstance(error, UnitFailed):
            raise UnitFailed(f"{error.message}; {outcome}", hint=error.hint) from error
        raise


def _switch_tcp(queen: Queen, *, is_open: bool, moved: bool) -> Tcp:
    """Set whether the queen is open, and restart it if needed: a running service gets no new socket."""
    bus, teller = queen.work.bus, queen.work.teller
    tcp: Tcp = queen.ask(QueenRoutes.SET_TCP, SetTcp(is_open))
    if bool(tcp.listens) == is_open and not moved:
        return tcp
    if is_open:
        teller.narrate(OPENING_TCP, "restarting the queen with her TCP socket; hives reconnect")
    else:
        teller.narrate(CLOSING_TCP, "restarting the queen without her TCP socket")
    _restart_queen(bus, queen.work.left)
    tcp = queen.ask(QueenRoutes.TCP)
    if bool(tcp.listens) != is_open:
        state = bus.state(TCP_SOCKET_UNIT)
        raise UnitFailed(
            f"{TCP_SOCKET_UNIT} is {state.active} ({state.result or state.sub})",
            hint=bus.scope.where_to_look(TCP_SOCKET_UNIT),
        )
    return tcp


def _restart_queen(bus: Bus, left: Callable[[float], float]) -> None:
    """Restart the queen, and with it its TCP socket (PartOf=), which its start opens.

    In one job: between a stop and a start any client of its Unix socket would wake it.
    """
    if bus.active_state(TCP_SOCKET_UNIT) == "failed":
        bus.reset_failed(TCP_SOCKET_UNIT)
    bus.restart(QUEEN_UNIT, timeout=left(STOP_TIMEOUT + START_TIMEOUT))


def _go_back(queen: Queen, before: Tcp, *, dropin: bytes | None, moved: bool) -> str:
    """Make the queen listen as before; return the end of a sentence with the outcome."""

    def most(seconds: float) -> float:
        return seconds  # regardless of --timeout: the queen must not be left half-way

    bus = queen.work.bus
    try:
        if moved:
            _dropin(bus.scope).put(bus, dropin)
        if bus.active_state(QUEEN_UNIT) != "active":
            # Not if it runs: its start would try the TCP socket once more, and systemd would refuse that.
            bus.start(QUEEN_UNIT, timeout=START_TIMEOUT)
        now: Tcp = queen.ask(QueenRoutes.SET_TCP, SetTcp(before.is_open))
        if now.listens != before.listens:
            _restart_queen(bus, most)
            now = queen.ask(QueenRoutes.TCP)
    except RbeeError as error:
        return f"going back failed, too: {error}"
    if now.listens != before.listens:
        return f"the queen does not listen on {', '.join(before.listens)} any more, either"
    return f"the queen listens on {', '.join(now.listens) or 'its own machine only'}, as before"


def check_listen(text: str, scope: Scope) -> str:
    """Return what was typed as ListenStream= takes it. BadInput; NotPermitted if the user is not root."""
    host, port = parse_listen(text, QUEEN_PORT)
    if not scope.is_owner():
        raise NotPermitted(
            f"only root may set the address, a drop-in in {_dropin(scope).path.parent}",
            hint=scope.rbeectl(f"tcp enable --listen {text}", as_root=True),
        )
    check_free(host, port)
    return joined(host, port)


def parse_listen(text: str, port: int) -> tuple[str, int]:
    """The IP address and the port that were typed for --listen; the port is `port` if none was. BadInput."""
    host, port = parse_address(text, field="--listen", port=port)
    try:
        ip_address(host)
    except ValueError as error:
        message = "--listen must have an IP address, as a socket unit takes no host names"
        raise BadInput(message, field="--listen") from error
    return host, port


def check_free(host: str, port: int) -> None:
    """Raise cannot_listen() if systemd could not: it would fail only after the old socket has been closed."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
            # As the socket unit has them, so that the queen's own socket is no conflict.
            for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                probe.setsockopt(socket.SOL_SOCKET, option, 1)
            probe.bind((host, port))
    except OSError as error:
        raise cannot_listen(error, host, port) from error


def cannot_listen(error: OSError, host: str, port: int) -> RbeeError:
    """The error for an address at which the kernel lets nobody listen, or not this user."""
    if error.errno == errno.EADDRINUSE:
        message, hint = f"another program already listens on port {port}", f"sudo ss -ltnp 'sport = :{port}'"
    elif error.errno == errno.EADDRNOTAVAIL:
        message = f"this machine does not have the address {host} ({error.strerror})"
        hint = "ip -brief address"
    elif error.errno in FORBIDDEN:
        return NotPermitted(
            f"you may not listen on port {port} ({error.strerror})",
            hint="sysctl net.ipv4.ip_unprivileged_port_start shows the first port that users may have",
            field="--listen",
        )
    else:  # IPv6 is off, say
        message = f"this machine cannot listen on {joined(host, port)} ({error.strerror})"
        hint = "ip -brief address"
    return BadInput(message, hint=hint, field="--listen")


def _dropin(scope: Scope) -> Dropin:
    return Dropin(TCP_SOCKET_UNIT, "50-listen.conf", scope)
