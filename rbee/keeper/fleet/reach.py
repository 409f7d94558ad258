"""Can a remote queen be reached from here, and is it the one that a token is from?

Checked before a hive joins it, so that a wrong address is known within seconds.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable

from rbee import tls
from rbee.client.answers import cannot_connect
from rbee.errors import NotRunning, TimedOut, Unreachable, WrongQueen
from rbee.keeper.fleet.address import joined
from rbee.scope import REMOTE, SYSTEM, Scope
from rbee.wire.routes import FleetRoutes

REACH_TIMEOUT = 5.0
"""Seconds for the connection, and for the answer: a lost packet is sent again after 1 s and 3 s."""

ANSWER_LIMIT = 65536

STATUS = REMOTE.rbeectl("tcp status")

PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)

CA_REQUEST = (
    f"GET {FleetRoutes.CA.path} HTTP/1.1\r\nHost: {tls.QUEEN_NAME}\r\nConnection: close\r\n\r\n".encode()
)


def connect(host: str, port: int, left: Callable[[float], float], scope: Scope = SYSTEM) -> socket.socket:
    """Connect to the queen's port. TimedOut or Unreachable; the hint says what to check where."""
    place = joined(host, port)
    timeout = left(REACH_TIMEOUT)
    try:
        return socket.create_connection((host, port), timeout)
    except TimeoutError as error:
        raise TimedOut(
            f"nothing answered at {place} within {timeout:g} s: a firewall drops what is sent to "
            f"port {port}, or no machine has the address",
            hint=f"On the queen's machine: {STATUS}, and let TCP in, such as by: "
            f"sudo ufw allow {port}/tcp\nFrom here: ping -c 3 {host}",
        ) from error
    except UnicodeError as error:
        raise Unreachable(f"the name in {place} is not known", hint=f"getent hosts {host}") from error
    except OSError as error:
        failure = cannot_connect(place, error, scope)
        if isinstance(failure, NotRunning):
            raise Unreachable(
                f"the machine refused the connection: {failure.message}",
                hint=f"On the queen's machine: {STATUS}; or its firewall rejects port {port}",
            ) from error
        raise failure from error


def check_keys(
    channel: socket.socket,
    host: str,
    port: int,
    fingerprint: str,
    left: Callable[[float], float],
    scope: Scope = SYSTEM,
) -> None:
    """Raise WrongQueen unless the server has the keys named in the token.

    Nothing of the token is sent; TLS is used as a hive does. Raises TimedOut without an answer, and as
    cannot_connect() returns if the connection breaks.
    """
    place, timeout = joined(host, port), left(REACH_TIMEOUT)
    try:
        ca = _ca(channel, timeout)
    except TimeoutError as error:
        raise TimedOut(
            f"{place} accepted the connection and sent nothing within {timeout:g} s",
            hint=f"Is it the queen's port? On the queen's machine: {STATUS}; sudo ss -ltnp 'sport = :{port}'",
        ) from error
    except OSError as error:
        raise cannot_connect(place, error, scope) from error
    if not tls.has_fingerprint(ca, fingerprint):
        raise WrongQueen(
            f"the server at {place} is not the queen that the token is from",
            hint="Check the address, or make a new token on the queen's machine: "
            + REMOTE.rbeectl("token create"),
        )


def _ca(channel: socket.socket, timeout: float) -> str:
    """The certificate of the other side's CA, in PEM; '' if it sends none. Raises OSError."""
    channel.settimeout(timeout)
    with tls.trusting_context().wrap_socket(channel, server_hostname=tls.QUEEN_NAME) as talk:
        talk.sendall(CA_REQUEST)
        answer = b""
        while not (found := PEM.search(answer)) and len(answer) < ANSWER_LIMIT:
            part = talk.recv(4096)
            if not part:
                return ""
            answer += part
    return found[0].decode() if found else ""
