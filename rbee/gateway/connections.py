"""Connections of clients: over the Unix socket, over plain TCP from this machine, and over TLS."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import httptools

from rbee.errors import RbeeError
from rbee.gateway.openai import error_content
from rbee.server.connection import IDLE_TIMEOUT, Connection, whole_answer
from rbee.server.limits import Bound
from rbee.server.peer import AnyPeer, RemotePeer, address_of, peer_at
from rbee.server.upgrading import RemoteConnection

BODY_TIMEOUT = 60.0
"""Seconds from the end of a request's head to that of its body, of up to 32 MiB."""

CLIENTS = Bound(total=4096, kept=256, a_user=2048, a_process=2048)
"""Connections at once. Over TCP the address counts as user and as process, which many clients may share."""


def _answer_to(error: RbeeError) -> bytes:
    return whole_answer(error.status, error_content(error), "application/json")


class _GatewayConnection(Connection):
    """A connection of a client, which may offer another protocol: with h2c many do, as curl and Java do.

    An Upgrade is ignored (RFC 9110, 7.8). The parser takes what follows such a head for the other protocol,
    the request's body too: another parser gets the request once more without the header.
    """

    BODY_SECONDS = BODY_TIMEOUT
    answer_to = staticmethod(_answer_to)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._offers_upgrade = False
        """Has a head with Upgrade come, which is to be repeated without it?"""
        self._is_repeating = False

    def on_headers_complete(self) -> None:
        # What a CONNECT has instead of a body cannot be told from a request. A parser may find an Upgrade
        # even in the repeated head, by its own reading of the names: that one is refused.
        may_ignore = self.parser.get_method() != b"CONNECT" and not self._is_repeating
        self._offers_upgrade = may_ignore and self.parser.should_upgrade()
        if not self._offers_upgrade:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        if not self._offers_upgrade:
            super().on_message_complete()

    def _took_upgrade(self, error: Exception, data: bytes) -> bool:
        if not self._offers_upgrade or not isinstance(error, httptools.HttpParserUpgrade):
            return super()._took_upgrade(error, data)
        method, version = self.parser.get_method(), self.parser.get_http_version()
        lines = [b"%s %s HTTP/%s" % (method, self.url, version.encode())]
        lines += [b"%s: %s" % (name, value) for name, value in self.headers if name.strip() != b"upgrade"]
        self.parser = httptools.HttpRequestParser(self)
        with contextlib.suppress(AttributeError):  # httptools before 0.6.3
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn
        self._is_repeating = True
        self.data_received(b"\r\n".join([*lines, b"", b""]))
        self._is_repeating = False
        rest = data[error.args[0] :]
        if rest:
            self.data_received(rest)
        return True


class ClientConnection(_GatewayConnection):
    """A connection over the Unix socket, from a process, or over plain TCP, from an address."""

    def _find_peer(self) -> AnyPeer:
        channel = self.transport.get_extra_info("socket")
        if channel.family == socket.AF_UNIX:
            return peer_at(channel)
        return RemotePeer(address_of(channel.getpeername()), None)


class TlsClientConnection(_GatewayConnection, RemoteConnection):
    """A connection over TLS. It has a place in CLIENTS once its client has shown a valid key."""

    def _take_place(self, peer: AnyPeer) -> bool:
        self._idle_timeout = IDLE_TIMEOUT
        return False  # until then the listener counts it

    def on_headers_complete(self) -> None:
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]  # an extension of ours
        scope["rbee.admitted"] = self._admitted
        super().on_headers_complete()

    def _admitted(self) -> None:
        """Take the place of a client that has shown a key. Raises TooMany."""
        if self._peer is not None or self.transport.is_closing():
            return
        peer = self._find_peer()
        self._limits.take(peer)
        self._peer = peer
        self._authenticated()
