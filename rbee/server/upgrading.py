"""Connections whose requests may upgrade to another protocol (rbee.server.upgrade)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import httptools

from rbee.server.connection import DAEMON_IDLE_TIMEOUT, HEAD_TIMEOUT, Connection
from rbee.server.peer import AnyPeer, RemotePeer, remote_peer_at
from rbee.server.transport import TlsTransport, Together
from rbee.server.upgrade import Upgraded


class UpgradingConnection(Connection):
    """A connection, a request of which may upgrade to one of the protocols `upgrades`."""

    def __init__(self, *arguments: Any, upgrades: Collection[str] = (), **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._upgrades = upgrades
        self._upgrade_to = ""
        """What the request that is being received asks for."""

    def _check_upgrade(self) -> None:
        asked = [value.decode("latin-1") for name, value in self.headers if name == b"upgrade"]
        if len(asked) != 1 or asked[0] not in self._upgrades or self.pipeline:
            super()._check_upgrade()
        self._upgrade_to = asked[0]
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]  # an extension of ours
        scope["rbee.upgrade"] = self._upgrade

    def _took_upgrade(self, error: Exception, data: bytes) -> bool:
        # No data may follow before the answer: it could belong to either protocol.
        if not isinstance(error, httptools.HttpParserUpgrade) or error.args[0] != len(data):
            return False
        self._awaited = "request"
        self.cycle.keep_alive = False  # if it is refused
        self.cycle.more_body = False
        self.cycle.message_event.set()
        self._be_patient()
        return True

    def _upgrade(self, protocol: Upgraded) -> None:
        """Continue with another protocol, which takes over this connection's place in the limits."""
        self.cycle.disconnected = True  # uvicorn has nothing to answer any more
        transport, peer = self.transport, self._peer
        if transport.is_closing() or peer is None or self._is_refused:
            protocol.connection_lost(None)
            return
        self._peer = None
        protocol.give_back = partial(self._limits.give_back, peer)
        # Not this class's method, which reports the end; and an error, as None would close the connection.
        Connection.connection_lost(self, ConnectionResetError())
        transport.write(
            b"HTTP/1.1 101 Switching Protocols\r\n"
            b"connection: Upgrade\r\nupgrade: %s\r\n\r\n" % self._upgrade_to.encode()
        )
        transport.set_protocol(protocol)
        # References to this protocol would keep it in memory as long as the connection lasts.
        self.cycle = self.scope = None  # type: ignore[assignment]
        self._upgraded(protocol)
        protocol.connection_made(transport)

    def _upgraded(self, protocol: Upgraded) -> None:
        """Prepare the transport for the protocol."""


class RemoteConnection(UpgradingConnection):
    """A connection over TCP and TLS, whose peer is an address and the credential in its certificate."""

    def __init__(
        self, *arguments: Any, authenticated: Callable[[], None], together: Together, **options: Any
    ) -> None:
        """`authenticated` is called once the client has shown a credential, and at the end."""
        super().__init__(*arguments, **options)
        self._authenticated = authenticated
        self._together = together

    def connection_lost(self, exc: Exception | None) -> None:
        self._authenticated()
        super().connection_lost(exc)

    def _find_peer(self) -> RemotePeer:
        return remote_peer_at(
            self.transport.get_extra_info("socket"), self.transport.get_extra_info("ssl_object")
        )

    def _take_place(self, peer: AnyPeer) -> bool:
        assert isinstance(peer, RemotePeer)
        if peer.credential is None:
            self._idle_timeout = HEAD_TIMEOUT  # the listener counts unauthenticated peers itself
            return False
        self._limits.take(peer)
        self._idle_timeout = DAEMON_IDLE_TIMEOUT
        self._authenticated()
        return True

    def _upgraded(self, protocol: Upgraded) -> None:
        if protocol.is_read_together:
            assert isinstance(self.transport, TlsTransport)
            self.transport.read_with(self._together)
