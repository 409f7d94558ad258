"""Dials the queen for a connection that begins with an HTTP request and continues with another protocol."""

from __future__ import annotations

import asyncio
import socket
import ssl

import httptools

from rbee import __version__
from rbee.client.answers import ANSWER_LIMIT, cannot_connect, refusal
from rbee.client.link import QueenAddress
from rbee.errors import Disconnected, NoSuchRoute, RbeeError, TimedOut, Unreachable, VersionSkew
from rbee.scope import SYSTEM, Scope
from rbee.server.listener import USER_TIMEOUT
from rbee.server.transport import TlsTransport, handshake
from rbee.tls import QUEEN_NAME
from rbee.uplink.frames import hello
from rbee.wire.routes import Route

TIMEOUT = 5.0
"""Seconds for the connection and the queen's answer together."""

ADDRESSES_MAX = 8
"""Addresses of the queen's host name that are tried, all at once."""


async def dial(
    queen: QueenAddress,
    route: Route[None],
    headers: dict[str, str],
    protocol: asyncio.Protocol,
    *,
    scope: Scope = SYSTEM,
    **values: str,
) -> TlsTransport:
    """Dial the queen, and let the connection continue with `protocol`; `values` are for the route's path.

    Raises the queen's refusal, TimedOut, VersionSkew if it is too old, or what cannot_connect() returns.
    """
    try:
        async with asyncio.timeout(TIMEOUT):
            asking = _Asking(queen, scope)
            transport = TlsTransport(await _connect(queen, scope), asking)
            try:
                transport.write(hello(route, QUEEN_NAME, headers, **values))
                rest = await asking.answered
                transport.set_protocol(protocol)
                protocol.connection_made(transport)
                if rest:
                    protocol.data_received(rest)
            except BaseException:
                transport.abort()
                await asyncio.sleep(0)  # a transport closes its socket in the loop's next round
                raise
            return transport
    except TimeoutError as error:
        raise TimedOut(f"{queen} did not answer within {TIMEOUT:g} s") from error
    except NoSuchRoute as error:
        raise VersionSkew(
            f"the queen at {queen} is older than rbee-hive {__version__} and does not know its connections",
            hint="On the queen's machine: upgrade rbee-queen",
        ) from error


class _Asking(asyncio.Protocol):
    """Reads the answer to the first request; the result of `answered` is the data after it."""

    def __init__(self, queen: QueenAddress, scope: Scope) -> None:
        self._queen = queen
        self._scope = scope
        self._parser = httptools.HttpResponseParser(self)
        self._body = b""
        self.answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._parser.get_status_code() == 101:
                self._answer(data[upgrade.args[0] :])
            else:
                self._fail(Unreachable(f"{self._queen} switched protocols without a request"))
        except httptools.HttpParserError as error:
            self._fail(Unreachable(f"the server at {self._queen} does not speak HTTP ({error})"))

    def on_body(self, part: bytes) -> None:
        self._body += part
        if len(self._body) > ANSWER_LIMIT:
            self._fail(Unreachable(f"the answer from {self._queen} is larger than {ANSWER_LIMIT} bytes"))

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status == 101:
            return
        if status < 400:
            self._fail(Unreachable(f"{self._queen} answers with {status} and does not change the protocol"))
            return
        try:
            self._fail(refusal(self._body, status))
        except RbeeError as error:
            self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self._fail(Disconnected(f"the connection to {self._queen} broke"))
        else:
            self._fail(cannot_connect(self._queen, exc, self._scope))

    def _answer(self, rest: bytes) -> None:
        if not self.answered.done():
            self.answered.set_result(rest)

    def _fail(self, error: RbeeError) -> None:
        if not self.answered.done():
            self.answered.set_exception(error)


async def _connect(queen: QueenAddress, scope: Scope) -> ssl.SSLSocket:
    """Return a TLS connection to the queen; raises what cannot_connect() returns."""
    try:
        plain = await _reach(queen.host, queen.port)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT)
        # The name in the queen's certificate, whatever its address.
        channel = queen.context.wrap_socket(
            plain, server_hostname=QUEEN_NAME, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )
        try:
            await handshake(channel)
        except BaseException:
            channel.close()
            raise
        return channel
    except OSError as error:
        raise cannot_connect(queen, error, scope) from error


async def _reach(host: str, port: int) -> socket.socket:
    """Connect to the host's addresses at once, and return the first connection."""
    loop = asyncio.get_running_loop()
    addresses = (await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM))[:ADDRESSES_MAX]
    tries = [loop.create_task(_reach_one(family, address)) for family, _, _, _, address in addresses]
    reached: socket.socket | None = None
    try:
        failure: OSError | None = None
        for coming in asyncio.as_completed(tries):
            try:
                reached = await coming
                return reached
            except OSError as error:
                failure = failure or error
        raise failure or OSError("the name has no address")
    finally:
        for task in tries:
            task.cancel()
        for channel in await asyncio.gather(*tries, return_exceptions=True):
            if isinstance(channel, socket.socket) and channel is not reached:
                channel.close()


async def _reach_one(family: int, address: object) -> socket.socket:
    channel = socket.socket(family, socket.SOCK_STREAM)
    try:
        channel.setblocking(False)
        await asyncio.get_running_loop().sock_connect(channel, address)  # type: ignore[arg-type]
    except BaseException:
        channel.close()
        raise
    return channel
