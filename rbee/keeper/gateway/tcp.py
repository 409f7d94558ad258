"""Open the gateway to clients over TCP or close it; its address and its certificate are drop-ins."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from rbee.errors import BadInput, NotPermitted, RbeeError, UnitFailed
from rbee.files import explained as explained_file
from rbee.keeper.dropin import Dropin
from rbee.keeper.fleet.address import joined
from rbee.keeper.fleet.tcp import check_free, parse_listen
from rbee.keeper.queen.queen import Queen
from rbee.keeper.work import Work
from rbee.narration import CLOSING_TCP, OPENING_TCP
from rbee.scope import GATEWAY_CREDENTIALS, GATEWAY_TCP_SOCKET_UNIT, GATEWAY_UNIT, Scope
from rbee.systemd.bus import Bus
from rbee.wire.keys import SetGateway
from rbee.wire.routes import QueenRoutes
from rbee.wire.types import GATEWAY_PORT

STOP_TIMEOUT = 20.0

START_TIMEOUT = 35.0

TRIES = 3
"""Times that the gateway is stopped for its TCP socket: a client of its Unix socket may wake it meanwhile."""

OPENING = "opening the gateway's TCP socket; requests in progress are cut"

CLOSING = "closing the gateway's TCP socket; requests in progress are cut"

LISTEN = "# By rbeectl gateway enable --listen.\n[Socket]\nListenStream=\nListenStream=%s\n"

TLS = (
    "# By rbeectl gateway enable --tls-cert --tls-key.\n[Service]\n"
    "LoadCredential=rbee.gateway.crt:%s\nLoadCredential=rbee.gateway.key:%s\n"
)


class TcpState(NamedTuple):
    """Whether the gateway may be opened to TCP (None if the queen is not awake to report it), the addresses
    on which it listens now, and find_tls()."""

    is_open: bool | None
    listens: tuple[str, ...]
    has_tls: bool | None

    @classmethod
    def find(cls, work: Work, *, is_open: bool | None = None) -> TcpState:
        """As systemd reports it."""
        listens = addresses(work.bus) if work.bus.state(GATEWAY_TCP_SOCKET_UNIT).is_active else ()
        return cls(is_open, listens, find_tls(work.scope))


class Typed(NamedTuple):
    """The options of gateway enable, checked: what ListenStream= takes, and the TLS drop-in's content, or
    whether it is to be removed."""

    listen: str | None = None
    tls: str | None = None
    without_tls: bool = False

    def will_have_tls(self, scope: Scope) -> bool | None:
        """As find_tls(), once they are applied."""
        if self.without_tls:
            return _find_stored_tls(scope)
        return self.tls is not None or find_tls(scope)


def addresses(bus: Bus) -> tuple[str, ...]:
    """The addresses that the TCP socket is for, whether it is open or not."""
    listed = bus.listen_addresses(GATEWAY_TCP_SOCKET_UNIT)
    return tuple(address for kind, address in listed if kind == "Stream")


def listen_dropin(scope: Scope) -> Dropin:
    """The drop-in with the address."""
    return Dropin(GATEWAY_TCP_SOCKET_UNIT, "50-listen.conf", scope)


def tls_dropin(scope: Scope) -> Dropin:
    """The drop-in with the certificate and its key, which systemd reads as root."""
    return Dropin(GATEWAY_UNIT, "50-tls.conf", scope)


def find_tls(scope: Scope) -> bool | None:
    """Whether the gateway has a certificate, by the drop-in or in systemd's credential store; None if this
    user may not look there."""
    return tls_dropin(scope).path.exists() or _find_stored_tls(scope)


def _find_stored_tls(scope: Scope) -> bool | None:
    """As find_tls(), in the credential store alone."""
    try:
        for name in GATEWAY_CREDENTIALS:
            (scope.credstore / name).stat()
    except PermissionError:
        return None
    except OSError:
        return False
    return True


# What was typed


def check_typed(
    listen: str | None, cert: str | None, key: str | None, scope: Scope, *, without_tls: bool = False
) -> Typed:
    """Check the options, before the queen is woken. BadInput; NotPermitted if they need root."""
    if (cert is None) != (key is None):
        raise BadInput("--tls-cert and --tls-key are given together", field="--tls-cert")
    if without_tls and cert is not None:
        raise BadInput("--no-tls and --tls-cert cannot be given together", field="--no-tls")
    if listen is None and cert is None and not without_tls:
        return Typed()
    address = None if listen is None else parse_listen(listen, GATEWAY_PORT)
    if not scope.is_owner():
        words = [("--listen", listen), ("--tls-cert", cert), ("--tls-key", key)]
        options = [f"{option} {word}" for option, word in words if word is not None]
        line = " ".join([*options, *(["--no-tls"] if without_tls else [])])
        raise NotPermitted(
            f"only root may set the address and the certificate, which are drop-ins in {scope.dropins}",
            hint=scope.rbeectl(f"gateway enable {line}", as_root=True),
        )
    tls = None if cert is None or key is None else _checked_tls(cert, key)
    typed = Typed(None if address is None else joined(*address), tls, without_tls)
    if typed.listen is not None:
        check_plain((typed.listen,), has_tls=typed.will_have_tls(scope), scope=scope)
    return typed


def check_plain(listens: tuple[str, ...], *, has_tls: bool | None, scope: Scope) -> None:
    """BadInput for an address beyond this machine without TLS: keys would cross the network as plain text."""
    beyond = [one for one in listens if not _is_loopback(one)]
    if beyond and has_tls is False:  # where that is not known, the gateway itself refuses
        local = f"gateway enable --listen 127.0.0.1:{GATEWAY_PORT}"
        again = f"gateway enable --listen {beyond[0]} --tls-cert FILE --tls-key FILE"
        raise BadInput(
            f"{beyond[0]} can be reached from other machines, and plain HTTP is for this machine only",
            hint=f"{scope.rbeectl(again, as_root=True)}\n"
            f"Or behind a proxy with TLS: {scope.rbeectl(local, as_root=True)}",
            field="--listen",
        )


def _is_loopback(listen: str) -> bool:
    host = listen.rpartition(":")[0].strip("[]")
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False  # a port alone means all addresses


def _checked_tls(cert: str, key: str) -> str:
    """The drop-in for a certificate and its key; BadInput unless they belong together."""
    import ssl  # only to set them

    paths = [Path(os.path.abspath(one)) for one in (cert, key)]
    for path, option in zip(paths, ("--tls-cert", "--tls-key"), strict=True):
        if not str(path).isprintable():
            raise BadInput(f"{option} must have a path of printable characters", field=option)
        with explained_file(path, "read"):
            if not stat.S_ISREG(path.stat().st_mode):
                raise BadInput(f"{path} is not a regular file", field=option)
            path.read_bytes()
    try:
        # An empty password: without one OpenSSL would ask on the terminal.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(paths[0], paths[1], lambda: "")
    except (ssl.SSLError, ValueError, OSError) as error:
        why = getattr(error, "reason", None) or str(error)
        raise BadInput(
            f"{paths[0]} and {paths[1]} are not a certificate and its key ({why})",
            hint=f"openssl x509 -noout -text -in {paths[0]}\nThe key must not have a password.",
            field="--tls-cert",
        ) from error
    return TLS % tuple(str(path).replace("%", "%%") for path in paths)


# Opening and closing


def open_gateway(queen: Queen, typed: Typed) -> TcpState:
    """Open the gateway to TCP. If that fails, it listens as before, and the error says so."""
    work = queen.work
    if typed.listen is None:
        check_plain(addresses(work.bus), has_tls=typed.will_have_tls(work.scope), scope=work.scope)
    new: dict[Dropin, bytes | None] = {}
    if typed.listen is not None:
        new[listen_dropin(work.scope)] = (LISTEN % typed.listen).encode()
    if typed.tls is not None or typed.without_tls:
        new[tls_dropin(work.scope)] = None if typed.tls is None else typed.tls.encode()
    with _going_back(queen, new):
        changed = [dropin for dropin, content in new.items() if dropin.read() != content]
        for dropin in changed:
            dropin.put(work.bus, new[dropin])
        queen.ask(QueenRoutes.SET_GATEWAY, SetGateway(True))
        if changed or not work.bus.state(GATEWAY_TCP_SOCKET_UNIT).is_active:
            _check_address(typed.listen, changed)
            work.teller.narrate(OPENING_TCP, OPENING)
            _restart_socket(work)
    return TcpState.find(work, is_open=True)


def close_gateway(queen: Queen) -> TcpState:
    """Close the gateway's TCP socket, and stop the gateway, which cuts all its requests in progress."""
    work = queen.work
    queen.ask(QueenRoutes.SET_GATEWAY, SetGateway(False))
    if work.bus.active_state(GATEWAY_TCP_SOCKET_UNIT) not in ("inactive", "failed"):
        work.teller.narrate(CLOSING_TCP, CLOSING)
        work.bus.stop(GATEWAY_TCP_SOCKET_UNIT, timeout=work.left(STOP_TIMEOUT))
    if work.bus.active_state(GATEWAY_UNIT) not in ("inactive", "failed"):
        # It still has the socket. Its next client starts it again.
        work.bus.stop(GATEWAY_UNIT, timeout=work.left(STOP_TIMEOUT))
    return TcpState.find(work, is_open=False)


def _check_address(listen: str | None, changed: list[Dropin]) -> None:
    if listen is not None and any(dropin.unit == GATEWAY_TCP_SOCKET_UNIT for dropin in changed):
        host, _, port = listen.rpartition(":")
        check_free(host.strip("[]"), int(port))


def _restart_socket(work: Work) -> None:
    """Have the TCP socket opened anew, with the service stopped: systemd opens none while that runs."""
    bus = work.bus
    for left in reversed(range(TRIES)):
        for unit in (GATEWAY_TCP_SOCKET_UNIT, GATEWAY_UNIT):
            bus.stop(unit, timeout=work.left(STOP_TIMEOUT))
            if bus.active_state(unit) == "failed":
                bus.reset_failed(unit)
        try:
            bus.start(GATEWAY_TCP_SOCKET_UNIT, timeout=work.left(START_TIMEOUT))
        except UnitFailed:
            # A client of the Unix socket has woken the service meanwhile, and its start opens both.
            if not left or bus.active_state(GATEWAY_UNIT) not in ("active", "activating"):
                raise
        if bus.state(GATEWAY_TCP_SOCKET_UNIT).is_active:
            return
    state = bus.state(GATEWAY_TCP_SOCKET_UNIT)
    raise UnitFailed(
        f"{GATEWAY_TCP_SOCKET_UNIT} is {state.active} ({state.result or state.sub})",
        hint=bus.scope.where_to_look(GATEWAY_TCP_SOCKET_UNIT),
    )


@contextmanager
def _going_back(queen: Queen, new: Mapping[Dropin, bytes | None]) -> Iterator[None]:
    """If the context fails, have the gateway listen as before; UnitFailed then says so."""
    bus = queen.work.bus
    was_open = queen.ask(QueenRoutes.GATEWAY).is_open
    was_listening = bus.state(GATEWAY_TCP_SOCKET_UNIT).is_active
    before = {dropin: dropin.read() for dropin in new}
    try:
        yield
    except BaseException as error:
        try:
            for dropin, content in before.items():
                if dropin.read() != content:
                    dropin.put(bus, content)
            queen.ask(QueenRoutes.SET_GATEWAY, SetGateway(was_open))
            if was_listening:
                # Regardless of --timeout: it must not be left half-way.
                _restart_socket(queen.work._replace(left=lambda most: most))
            else:
                bus.stop(GATEWAY_TCP_SOCKET_UNIT, timeout=STOP_TIMEOUT)
            outcome = "it listens as before"
        except RbeeError as failure:
            outcome = f"going back failed, too: {failure}"
        if isinstance(error, UnitFailed):
            raise UnitFailed(f"{error.message}; {outcome}", hint=error.hint) from error
        raise
