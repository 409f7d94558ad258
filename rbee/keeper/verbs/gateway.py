"""rbeectl gateway: open the gateway to clients over TCP, or close it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from rbee.keeper.gateway.sockets import have_listening, is_installed, no_gateway
from rbee.keeper.options import Suggesting, changing, in_session, looking
from rbee.keeper.queen.queen import Queen
from rbee.keeper.session import Session
from rbee.scope import GATEWAY_SOCKET_UNIT, GATEWAY_TCP_SOCKET_UNIT, GATEWAY_UNIT
from rbee.systemd.unit import UnitState
from rbee.text import printable
from rbee.wire.routes import QueenRoutes

if TYPE_CHECKING:
    from rbee.keeper.gateway.tcp import TcpState

UNITS = (GATEWAY_UNIT, GATEWAY_SOCKET_UNIT, GATEWAY_TCP_SOCKET_UNIT)


@click.group(cls=Suggesting, short_help="Open the gateway to clients over TCP, or close it.")
def gateway() -> None:
    """Open the gateway to clients over TCP, or close it. Over its Unix socket it is always open."""


@gateway.command("enable", short_help="Open the gateway's TCP socket.")
@click.option("--listen", metavar="ADDRESS:PORT", help="Address to listen on, stored in a drop-in, as root.")
@click.option("--tls-cert", metavar="FILE", help="Certificate chain in PEM, stored in a drop-in, as root.")
@click.option("--tls-key", metavar="FILE", help="Key of the certificate, in PEM and without a password.")
@click.option("--no-tls", is_flag=True, help="Remove that certificate, as root.")
@changing
@in_session
def enable_gateway(
    session: Session, listen: str | None, tls_cert: str | None, tls_key: str | None, *, no_tls: bool
) -> None:
    """Open rbee-gateway-tcp.socket, for clients with a key.

    Plain HTTP is for loopback addresses only; any other address needs --tls-cert and --tls-key. Requests in
    progress are cut, as a running service cannot get another socket.
    """
    from rbee.keeper.gateway.tcp import check_typed, open_gateway  # only to change it

    typed = check_typed(listen, tls_cert, tls_key, session.scope, without_tls=no_tls)
    with session.queen() as queen:
        check_installed(queen)
        queen.wake()
        with queen.reached():
            tcp = open_gateway(queen, typed)
        have_listening(queen.work)
    if session.as_json:
        session.tell_json({"event": "done", **tcp_json(tcp)})
        return
    with_scheme = {True: ", with HTTPS", False: ", with HTTP", None: ""}[tcp.has_tls]
    session.say(f"The gateway listens on {', '.join(tcp.listens)}{with_scheme}")
    session.say(f"For a key: {session.scope.rbeectl('key create NAME')}")


@gateway.command("disable", short_help="Close the gateway's TCP socket.")
@changing
@in_session
def disable_gateway(session: Session) -> None:
    """Close rbee-gateway-tcp.socket, and cut all requests in progress; keys are kept."""
    from rbee.keeper.gateway.tcp import close_gateway  # only to change it

    with session.queen() as queen:
        check_installed(queen)
        queen.wake()
        with queen.reached():
            tcp = close_gateway(queen)
    if session.as_json:
        session.tell_json({"event": "done", **tcp_json(tcp)})
    else:
        session.say("The gateway listens on its Unix socket only")


@gateway.command("status", short_help="Show where the gateway listens.")
@looking
@in_session
def gateway_status(session: Session) -> None:
    """Show where the gateway listens, and whether it runs."""
    from rbee.keeper.gateway.tcp import TcpState

    with session.queen() as queen:
        check_installed(queen)
        is_awake = queen.state() == "awake"
        is_open = queen.ask(QueenRoutes.GATEWAY).is_open if is_awake else None
        tcp = TcpState.find(queen.work, is_open=is_open)
        bus = queen.work.bus
        units = {unit: bus.state(unit) for unit in UNITS}
    if session.as_json:
        states = {unit: {"active": state.active, "sub": state.sub} for unit, state in units.items()}
        session.tell_json({**tcp_json(tcp), "socket": str(session.scope.gateway_socket), "units": states})
        return
    session.show(lambda frame: "\n".join(map(frame.fit, status_lines(session, tcp, units))))


def status_lines(session: Session, tcp: TcpState, units: dict[str, UnitState]) -> list[str]:
    """The lines of gateway status."""
    service, local, remote = units.values()
    socket = session.scope.gateway_socket if local.is_active else f"- ({local.active})"
    failed = f" ({remote.result})" if remote.active == "failed" else ""
    is_open = "unknown, as the queen is not awake" if tcp.is_open is None else "yes" if tcp.is_open else "no"
    unseen = f"unknown to you; try: {session.scope.rbeectl('gateway status', as_root=True)}"
    has_tls = {True: "yes", False: "no", None: unseen}[tcp.has_tls]
    lines = [
        f"    Gateway: {service.active} ({service.sub})",
        f"Unix socket: {socket}",
        f"   TCP open: {is_open}",
        f"  Listening: {', '.join(tcp.listens) or f'-{failed}'}",
        f"        TLS: {has_tls}",
    ]
    if service.status_text:
        lines.append(f"     Status: {printable(service.status_text)}")
    return lines


def check_installed(queen: Queen) -> None:
    """NotRunning if there is no gateway on this machine."""
    if not is_installed(queen.work):
        raise no_gateway()


def tcp_json(tcp: TcpState) -> dict[str, Any]:
    """Where the gateway listens, as --json prints it."""
    return {"is_open": tcp.is_open, "listens": list(tcp.listens), "tls": tcp.has_tls}
