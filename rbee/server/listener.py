"""Accepting over TCP, where anybody may knock: bounded before TLS, and never given up.

asyncio's own server waits a minute for a handshake, and counts nobody before it is over.
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

STRANGERS_MAX = 512
"""Connections that have shown no credential (yet); for one more the oldest of them goes."""

STRANGERS_AN_ADDRESS = 128
"""As many of one address. Hives behind one NAT come from one address, and are strangers for a blink."""

USER_TIMEOUT = 20_000
"""Milliseconds that what was sent may stay unacknowledged: a link that was cut says nothing."""

ACCEPT_AGAIN = 0.5
"""Seconds until the next try when there is no descriptor, or no memory, for a connection."""

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

Factory = Callable[[Callable[[], None]], asyncio.Protocol]
"""Makes a connection's protocol, which calls what it is given when the client has shown a credential, and at
its end."""


class TlsListener:
    """One listening socket. `factory` makes the protocol of whoever has finished the handshake."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext, factory: Factory) -> None:
        self._listener = listener
        self._context = context
        self._factory = factory
        self._strangers: dict[_Stranger, None] = {}
        self._by_address: Counter[str] = Counter()
        self._is_exhausted = False
        self._open: set[TlsTransport] = set()

    async def run(self) -> None:
        """Accept until cancelled. What one connection does, or fails at, ends no other."""
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
        finally:
            for stranger in list(self._strangers):
                stranger.turn_away()

    def end(self) -> None:
        """Break off what is connected still."""
        for transport in list(self._open):
            transport.abort()

    async def _could_not_accept(self, error: OSError) -> None:
        if error.errno in _EXHAUSTED:
            if not self._is_exhausted:
                self._is_exhausted = True
                log.error("no connection over TCP can be accepted, retrying: %s", error.strerror)
            await asyncio.sleep(ACCEPT_AGAIN)
            return
        # Of the connection and not of the socket: accept(2) passes on what the network said of it.
        await asyncio.sleep(0)

    def _take(self, channel: socket.socket, address: str) -> None:
        if self._by_address[address] >= STRANGERS_AN_ADDRESS:
            channel.close()
            return
        if len(self._strangers) >= STRANGERS_MAX:
            next(iter(self._strangers)).turn_away()
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        channel.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT)
        stranger = _Stranger(address)
        self._strangers[stranger] = None
        self._by_address[address] += 1
        stranger.welcoming = asyncio.get_running_loop().create_task(self._welcome(channel, stranger))
        stranger.welcoming.add_done_callback(_seen)

    async def _welcome(self, channel: socket.socket, stranger: _Stranger) -> None:
        tls = None
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                tls = self._context.wrap_socket(channel, server_side=True, do_handshake_on_connect=False)
                await handshake(tls)
            protocol = self._factory(lambda: self._forget(stranger))
            stranger.transport = TlsTransport(tls, protocol, self._open.discard)
            self._open.add(stranger.transport)
        except BaseException:
            self._forget(stranger)
            _close(channel if tls is None else tls)
            raise

    def _forget(self, stranger: _Stranger) -> None:
        """It is none any more: it has shown a credential, or it is gone."""
        if stranger not in self._strangers:
            return
        del self._strangers[stranger]
        self._by_address[stranger.address] -= 1
        if not self._by_address[stranger.address]:
            del self._by_address[stranger.address]


class _Stranger:
    """A connection that has shown no credential."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.welcoming: asyncio.Task[None] | None = None
        self.transport: TlsTransport | None = None

    def turn_away(self) -> None:
        if self.transport is not None:
            self.transport.abort()
        elif self.welcoming is not None:
            self.welcoming.cancel()


def _seen(welcoming: asyncio.Task[None]) -> None:
    """A handshake that failed is the client's affair: who scans ports fills no journal."""
    if not welcoming.cancelled():
        welcoming.exception()


def _close(channel: socket.socket) -> None:
    """Close one whose handshake failed. What it sent is read, or the alert that says why would not arrive."""
    with suppress(OSError, ValueError):
        channel.settimeout(0)
        for _ in range(4):
            if not socket.socket.recv(channel, 65536):
                break
    channel.close()
