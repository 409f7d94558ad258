"""Accepts TLS connections over TCP, with limits that hold before a peer is authenticated.

asyncio's own server waits a minute for a handshake, and does not limit connections before it is over.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from rbee.server.peer import address_of
from rbee.server.transport import TlsTransport, handshake

log = logging.getLogger("rbee")

HANDSHAKE_TIMEOUT = 5.0
"""Seconds from the connection to the end of its TLS handshake."""

UNAUTHENTICATED_MAX = 512
"""Connections that have shown no credential (yet); one more closes the oldest of them."""

UNAUTHENTICATED_AN_ADDRESS = 128
"""The same for one address, which all hives behind a NAT share until each has shown its credential."""

USER_TIMEOUT = 20_000
"""Milliseconds that sent data may stay unacknowledged (tcp(7)): how a cut link is noticed."""

RETRY_AFTER = 0.5
"""Seconds until accepting is retried when there is no descriptor, or no memory, for a connection."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Factory = Callable[[Callable[[], None]], asyncio.Protocol]
"""Makes a connection's protocol. The protocol calls the argument once the client has shown a credential, and
at its end."""


class TlsListener:
    """One listening socket. `factory` makes the protocol of a connection whose handshake is finished."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext, factory: Factory) -> None:
        self._listener = listener
        self._context = context
        self._factory = factory
        self._unauthenticated: dict[_Unauthenticated, None] = {}
        self._by_address: Counter[str] = Counter()
        self._is_exhausted = False
        self._open: set[TlsTransport] = set()

    async def run(self) -> None:
        """Accept until cancelled. A connection that fails does not affect the others."""
        self._listener.setblocking(False)
        try:
            while True:
                try:
                    channel, name = await asyncio.get_running_loop().sock_accept(self._listener)
                except OSError as error:
                    await self._could_not_accept(error)
                    continue
                if self._is_exhausted:
                    self._is_exhausted = False
                    log.warning("connections over TCP are accepted again")
                self._take(channel, address_of(name))
                # sock_accept() does not wait while connections are queued: if many hives dial at once, all
                # would be accepted, and those beyond the limits closed, before the first handshake goes on.
                await asyncio.sleep(0)
        finally:
            for pending in list(self._unauthenticated):
                pending.close()

    def end(self) -> None:
        """Abort the connections that are left."""
        for transport in list(self._open):
            transport.abort()

    async def _could_not_accept(self, error: OSError) -> None:
        if error.errno in _EXHAUSTED:
            if not self._is_exhausted:
                self._is_exhausted = True
                log.error("no connection over TCP can be accepted, retrying: %s", error.strerror)
            await asyncio.sleep(RETRY_AFTER)
            return
        # An error of the connection, which accept(2) passes on, not of the socket.
        await asyncio.sleep(0)

    def _take(self, channel: socket.socket, address: str) -> None:
        if self._by_address[address] >= UNAUTHENTICATED_AN_ADDRESS:
            channel.close()
            return
        if len(self._unauthenticated) >= UNAUTHENTICATED_MAX:
            next(iter(self._unauthenticated)).close()
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT)
        pending = _Unauthenticated(address)
        self._unauthenticated[pending] = None
        self._by_address[address] += 1
        pending.handshake = asyncio.get_running_loop().create_task(self._handshake(channel, pending))
        pending.handshake.add_done_callback(_retrieve)

    async def _handshake(self, channel: socket.socket, pending: _Unauthenticated) -> None:
        tls = None
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                tls = self._context.wrap_socket(channel, server_side=True, do_handshake_on_connect=False)
                await handshake(tls)
            protocol = self._factory(lambda: self._forget(pending))
            pending.transport = TlsTransport(tls, protocol, self._open.discard)
            self._open.add(pending.transport)
        except BaseException:
            self._forget(pending)
            _close(channel if tls is None else tls)
            raise

    def _forget(self, pending: _Unauthenticated) -> None:
        """Stop counting a connection: it has shown a credential, or has ended."""
        if pending not in self._unauthenticated:
            return
        del self._unauthenticated[pending]
        self._by_address[pending.address] -= 1
        if not self._by_address[pending.address]:
            del self._by_address[pending.address]


class _Unauthenticated:
    """A connection that has shown no credential."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.handshake: asyncio.Task[None] | None = None
        self.transport: TlsTransport | None = None

    def close(self) -> None:
        if self.transport is not None:
            self.transport.abort()
        elif self.handshake is not None:
            self.handshake.cancel()


def _retrieve(handshake: asyncio.Task[None]) -> None:
    """Do not log a failed handshake: a port scan must not fill the journal."""
    if not handshake.cancelled():
        handshake.exception()


def _close(channel: socket.socket) -> None:
    """Close a socket whose handshake failed, after reading it: otherwise the TLS alert would not arrive."""
    with suppress(OSError, ValueError):
        channel.settimeout(0)
        for _ in range(4):
            if not socket.socket.recv(channel, 65536):
                break
    channel.close()
