"""Opening the queen to other machines, on her own: where she listens is a drop-in, and a restart."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

from rbee.errors import BadInput, NotPermitted, RbeeError, UnitFailed
from rbee.files import explained, write_whole
from rbee.keeper.fleet.address import parse_address
from rbee.keeper.queen.queen import Queen
from rbee.narration import CLOSING_TCP, OPENING_TCP
from rbee.scope import QUEEN_UNIT, TCP_SOCKET_UNIT
from rbee.systemd.bus import Bus
from rbee.wire.fleet import SetTcp, Tcp
from rbee.wire.routes import QueenRoutes

STOP_TIMEOUT = 20.0

START_TIMEOUT = 35.0

DROPIN = Path("/etc/systemd/system/queen-rbee-tcp.socket.d/50-listen.conf")

DROPIN_CONTENT = "# By rbeectl tcp enable --listen.\n[Socket]\nListenStream=\nListenStream=%s\n"


def set_tcp(queen: Queen, *, is_open: bool, address: str | None = None) -> Tcp:
    """Open the queen to other machines, at `address` from now on if one is given, or close her.

    Where that fails she listens as before, and the error says so.
    """
    before: Tcp = queen.ask(QueenRoutes.TCP)
    old = new = None
    if address is not None:
        old, new = _dropin(), (DROPIN_CONTENT % address).encode()
    try:
        if new != old:
            _put_dropin(queen.work.bus, new)
        return _switch_tcp(queen, is_open=is_open, moved=new != old)
    except BaseException as error:
        told = _go_back(queen, before, dropin=old, moved=new != old)
        if isinstance(error, UnitFailed):
            raise UnitFailed(f"{error.message}; {told}", hint=error.hint) from error
        raise


def _switch_tcp(queen: Queen, *, is_open: bool, moved: bool) -> Tcp:
    """A socket cannot join a queen who runs, so she is restarted."""
    bus, teller = queen.work.bus, queen.work.teller
    told: Tcp = queen.ask(QueenRoutes.SET_TCP, SetTcp(is_open))
    if bool(told.listens) == is_open and not moved:
        return told
    if is_open:
        teller.narrate(OPENING_TCP, "restarting the queen with her TCP socket; hives reconnect")
    else:
        teller.narrate(CLOSING_TCP, "restarting the queen without her TCP socket")
    _restart_queen(bus, queen.work.left)
    told = queen.ask(QueenRoutes.TCP)
    if bool(told.listens) != is_open:
        state = bus.state(TCP_SOCKET_UNIT)
        raise UnitFailed(
            f"{TCP_SOCKET_UNIT} is {state.active} ({state.result or state.sub})",
            hint=f"systemctl status {TCP_SOCKET_UNIT}; sudo journalctl -u {TCP_SOCKET_UNIT} -e",
        )
    return told


def _restart_queen(bus: Bus, left: Callable[[float], float]) -> None:
    """Her TCP socket with her: it is part of her unit, and her own start opens it.

    In one job: a hive or a person who speaks to her socket between a stop and a start would wake her.
    """
    if bus.active_state(TCP_SOCKET_UNIT) == "failed":
        bus.reset_failed(TCP_SOCKET_UNIT)
    bus.restart(QUEEN_UNIT, timeout=left(STOP_TIMEOUT + START_TIMEOUT))


def _go_back(queen: Queen, before: Tcp, *, dropin: bytes | None, moved: bool) -> str:
    """Have the queen listen as before; the end of a sentence with what has come of that."""

    def most(seconds: float) -> float:
        return seconds  # whatever the deadline was: she is not left half-way

    bus = queen.work.bus
    try:
        if moved:
            _put_dropin(bus, dropin)
        bus.start(QUEEN_UNIT, timeout=START_TIMEOUT)
        now: Tcp = queen.ask(QueenRoutes.SET_TCP, SetTcp(before.is_open))
        if now.listens != before.listens:
            _restart_queen(bus, most)
            now = queen.ask(QueenRoutes.TCP)
    except RbeeError as error:
        return f"going back failed, too: {error}"
    if now.listens != before.listens:
        return f"she does not listen on {', '.join(before.listens)} any more, either"
    return f"the queen listens on {', '.join(now.listens) or 'her own machine alone'}, as before"


def check_listen(text: str) -> str:
    """What was typed as ListenStream= has it, if this user may set it."""
    host, port = parse_address(text, field="--listen")
    try:
        ip_address(host)
    except ValueError as error:
        told = "--listen must have an IP address, as a socket unit knows no names"
        raise BadInput(told, field="--listen") from error
    if os.geteuid() != 0:
        raise NotPermitted(
            f"the address is a drop-in in {DROPIN.parent}, which is root's",
            hint=f"sudo rbeectl tcp enable --listen {text}",
        )
    _check_free(host, port)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _check_free(host: str, port: int) -> None:
    """BadInput where systemd could not listen there: it would find out after the queen has been stopped."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        # As the socket unit has it, so that the queen's own socket is not in the way.
        for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
            probe.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise BadInput(
                    f"another program listens on port {port} already",
                    hint=f"sudo ss -ltnp 'sport = :{port}'", field="--listen",
                ) from error  # fmt: skip
            raise BadInput(
                f"this machine does not have the address {host} ({error.strerror})",
                hint="ip -brief address", field="--listen",
            ) from error  # fmt: skip


def _dropin() -> bytes | None:
    with explained(DROPIN, "read"):
        try:
            return DROPIN.read_bytes()
        except FileNotFoundError:
            return None


def _put_dropin(bus: Bus, content: bytes | None) -> None:
    """Write what says where the TCP socket listens, as root, or take it away."""
    with explained(DROPIN, "written"):
        if content is None:
            DROPIN.unlink(missing_ok=True)
        else:
            DROPIN.parent.mkdir(parents=True, exist_ok=True)
            write_whole(DROPIN, content, mode=0o644)
    bus.reload()
