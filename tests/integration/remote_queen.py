"""A queen over TCP on 127.0.0.1: her keys are the product's own, and so is her server where one is wanted."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from starlette.types import ASGIApp

from rbee import tls
from rbee.client.link import QueenAddress
from rbee.queen.authority import Authority, Identity
from rbee.server.uvicorn import Remote
from rbee.systemd.daemon import Notifier
from rbee.uplink.frames import PROTOCOL
from tests.integration.unix_http import running

HERE = "127.0.0.1"
GPU1 = Identity("gpu1", "c" * 32)

Play = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def queen_address(
    authority: Authority, port: int, certificate: Path | None = None, *, host: str = HERE
) -> QueenAddress:
    """The queen of these keys, to a hive that has this certificate, or none."""
    return QueenAddress(host, port, tls.client_context(authority.ca, certificate, None))


def credential(authority: Authority, path: Path, identity: Identity = GPU1) -> Path:
    """A file with a key, and the certificate that this authority signs for it."""
    key = tls.new_key()
    path.write_text(key + authority.sign(tls.request_for(key), identity))
    return path


@asynccontextmanager
async def served_over_tcp(
    app: ASGIApp, context: ssl.SSLContext, notifier: Notifier, *, port: int = 0
) -> AsyncIterator[int]:
    """Serve `app` over TCP; what is yielded is the port."""
    with socket.create_server((HERE, port)) as listener:
        remote = Remote(app, [listener], context, PROTOCOL)
        async with running(app, [], notifier, remote=remote):
            yield listener.getsockname()[1]


@asynccontextmanager
async def playing_over_tcp(play: Play, context: ssl.SSLContext | None) -> AsyncIterator[int]:
    """A server that does just what `play` does with each connection, over TLS or without; its port."""
    loop = asyncio.get_running_loop()
    working: set[asyncio.Task[None]] = set()

    async def converse(channel: socket.socket) -> None:
        reader = asyncio.StreamReader()
        protocol = asyncio.StreamReaderProtocol(reader)
        try:
            transport, _ = await loop.connect_accepted_socket(lambda: protocol, channel, ssl=context)
        except OSError:  # the handshake is the client's affair
            channel.close()
            return
        try:
            await play(reader, asyncio.StreamWriter(transport, protocol, reader, loop))
        finally:
            transport.abort()

    async def accept() -> None:
        while True:
            channel, _ = await loop.sock_accept(listener)
            working.add(loop.create_task(converse(channel)))

    with socket.create_server((HERE, 0)) as listener:
        listener.setblocking(False)
        accepting = loop.create_task(accept())
        try:
            yield listener.getsockname()[1]
        finally:
            for task in (accepting, *working):
                task.cancel()
            await asyncio.gather(accepting, *working, return_exceptions=True)
            await asyncio.sleep(0)  # a transport closes its socket in the loop's next round


@contextmanager
def unheard_port() -> Iterator[int]:
    """A port that is nobody else's, and that nobody listens on."""
    with socket.socket() as bound:
        bound.bind((HERE, 0))
        yield bound.getsockname()[1]
