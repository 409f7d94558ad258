"""Connections of clients: over the Unix socket, over plain TCP from this machine, and over TLS."""

from __future__ import annotations

import socket
from typing import Any

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


class ClientConnection(Connection):
    """A connection over the Unix socket, from a process, or over plain TCP, from an address."""

    BODY_SECONDS = BODY_TIMEOUT
    answer_to = staticmethod(_answer_to)

    def _find_peer(self) -> AnyPeer:
        channel = self.transport.get_extra_info("socket")
        if channel.family == socket.AF_UNIX:
            return peer_at(channel)
        return RemotePeer(address_of(channel.getpeername()), None)


class TlsClientConnection(RemoteConnection):
    """A connection over TLS. It has a place in CLIENTS once its client has shown a valid key."""

    BODY_SECONDS = BODY_TIMEOUT
    answer_to = staticmethod(_answer_to)

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
