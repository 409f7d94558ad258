"""The sockets that systemd hands over, sorted by how they are served."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from rbee.errors import BadConfig
from rbee.files import reason
from rbee.scope import (
    GATEWAY_CREDENTIALS,
    GATEWAY_SOCKET_UNIT,
    GATEWAY_TCP_SOCKET_UNIT,
    GATEWAY_TCP_SOCKETS,
    GATEWAY_UNIT,
    Scope,
)
from rbee.server.peer import address_of
from rbee.tls import gateway_context

CERTIFICATE, KEY = GATEWAY_CREDENTIALS


class Listeners(NamedTuple):
    """The sockets that are served as they are, and those behind TLS with its context."""

    plain: list[socket.socket]
    encrypted: list[socket.socket]
    context: ssl.SSLContext | None


def sort_sockets(
    sockets: Mapping[str, list[socket.socket]], credentials: Path | None, scope: Scope
) -> Listeners:
    """Return the sockets by how they are served.

    `credentials` is the folder of the unit's credentials. With a certificate in it TCP is TLS; without one
    only loopback addresses are served. Raises BadConfig.
    """
    local = [one for name, named in sockets.items() if name != GATEWAY_TCP_SOCKETS for one in named]
    remote = sockets.get(GATEWAY_TCP_SOCKETS, [])
    _check_kinds(local, remote, scope)
    context = _context(credentials, scope)
    if context is not None:
        return Listeners(local, remote, context)
    for one in remote:
        address = address_of(one.getsockname())
        if not ip_address(address).is_loopback:
            raise _not_loopback(address, scope)
    return Listeners([*local, *remote], [], None)


def _check_kinds(local: list[socket.socket], remote: list[socket.socket], scope: Scope) -> None:
    if any(one.family != socket.AF_UNIX for one in local):
        raise BadConfig(
            f"{GATEWAY_SOCKET_UNIT} listens on TCP, but its clients need no key",
            hint=f"Remove every ListenStream= but {scope.gateway_socket} from {GATEWAY_SOCKET_UNIT}, "
            f"then: {scope.rbeectl('gateway enable', as_root=True)}",
        )
    if any(one.family == socket.AF_UNIX for one in remote):
        raise BadConfig(
            f"{GATEWAY_TCP_SOCKET_UNIT} has a Unix socket",
            hint=f"Remove every ListenStream= that is a path from {GATEWAY_TCP_SOCKET_UNIT}.",
        )


def _context(credentials: Path | None, scope: Scope) -> ssl.SSLContext | None:
    if credentials is None:
        return None
    certificate, key = credentials / CERTIFICATE, credentials / KEY
    if not certificate.exists() and not key.exists():
        return None
    for one, other in ((certificate, key), (key, certificate)):
        if not one.exists():
            raise BadConfig(
                f"{GATEWAY_UNIT} has the credential {other.name} and not {one.name}",
                hint=f"Add LoadCredential={one.name}:FILE in: "
                f"{scope.systemctl(f'edit {GATEWAY_UNIT}', as_root=True)}",
            )
    try:
        return gateway_context(certificate, key)
    except OSError as error:  # SSLError is one
        raise BadConfig(
            f"the credentials {CERTIFICATE} and {KEY} of {GATEWAY_UNIT} cannot be used: {reason(error)}",
            hint="They must be a certificate, with those that signed it, and its private key, in PEM.",
        ) from error


def _not_loopback(address: str, scope: Scope) -> BadConfig:
    enable = scope.rbeectl("gateway enable --tls-cert FILE --tls-key FILE", as_root=True)
    return BadConfig(
        f"{GATEWAY_TCP_SOCKET_UNIT} listens on {address} without TLS, where keys could be read",
        hint=f"Give it a certificate: {enable}; or listen on this machine only: "
        f"{scope.rbeectl('gateway enable --listen 127.0.0.1:8510', as_root=True)}",
    )
