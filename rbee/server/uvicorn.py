"""Serves an app with uvicorn on sockets from systemd, until the daemon stops."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import uvicorn
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from rbee.server.connection import (
    CONNECTIONS,
    DAEMON_IDLE_TIMEOUT,
    HIVE_CONNECTIONS,
    Connection,
)
from rbee.server.limits import Bound, Limits
from rbee.server.listener import TlsListener
from rbee.server.quick import Quick, QuickConnection
from rbee.server.transport import Together
from rbee.server.upgrading import RemoteConnection
from rbee.systemd.daemon import Notifier, watchdog_interval
from rbee.wire.routes import Route

# uvicorn.lifespan takes it from the package, which would be executed for that (rbee.later).
uvicorn.Config = Config  # type: ignore[misc]

GRACE = 1.0
"""Seconds that requests in flight have after SIGTERM."""

ACCEPTED_AT_ONCE = 100
"""Connections accepted in one round of the event loop."""

BACKLOG = 4096
"""Connections that may wait to be accepted, as in the socket units."""


class _Server:
    """Has uvicorn's protocol serve the connections on sockets, until it is told to end.

    In place of uvicorn.Server, whose signal handlers raise SIGTERM again when they end (0.32 and later), and
    whose clock checks ten times a second whether to end, and then ends in steps of 0.1 s. Like that it waits
    for requests in flight, for which _end() gives it GRACE.
    """

    def __init__(self, config: Config, on_started: Callable[[], None]) -> None:
        self.config = config
        self.server_state = ServerState()
        self._connections = self.server_state.connections = _Connections()
        self._on_started = on_started
        self._told_to_end = asyncio.Event()
        self._servers: list[asyncio.Server] = []

    async def serve(self, sockets: Sequence[socket.socket]) -> None:
        """Serve until end() is called, and all connections and requests have ended."""
        self.config.load()
        await self._startup(sockets)
        await self._told_to_end.wait()
        await self._shutdown(sockets)

    def end(self) -> None:
        """Have serve() end."""
        self._told_to_end.set()

    async def _startup(self, sockets: Sequence[socket.socket]) -> None:
        connection: Any = self.config.http_protocol_class
        factory = partial(connection, config=self.config, server_state=self.server_state, **protocol_state())
        for listener in sockets:
            server = await asyncio.get_running_loop().create_server(
                factory, sock=listener, backlog=ACCEPTED_AT_ONCE
            )
            self._servers.append(server)
            # asyncio uses one number both for the backlog and for how many it accepts at once.
            listener.listen(BACKLOG)
        self._on_started()

    async def _shutdown(self, sockets: Sequence[socket.socket]) -> None:
        for server in self._servers:
            server.close()
        for listener in sockets:
            listener.close()
        for connection in list(self._connections):
            connection.shutdown()
        await self._connections.are_gone.wait()
        while self.server_state.tasks:
            await asyncio.wait(set(self.server_state.tasks))


class _Connections(set[Any]):
    """The open connections, and an event that is set while there are none."""

    def __init__(self) -> None:
        super().__init__()
        self.are_gone = asyncio.Event()
        self.are_gone.set()

    def add(self, connection: Any) -> None:
        super().add(connection)
        self.are_gone.clear()

    def discard(self, connection: Any) -> None:
        super().discard(connection)
        if not self:
            self.are_gone.set()


class Remote(NamedTuple):
    """The app that is served over TCP, its sockets, and the TLS context."""

    app: ASGIApp
    sockets: Sequence[socket.socket]
    context: ssl.SSLContext
    upgrade: str | None = None
    """The protocol that a request may upgrade to (rbee.server.upgrade)."""
    connection: type[RemoteConnection] = RemoteConnection
    bound: Bound = HIVE_CONNECTIONS


class _RemoteServer(_Server):
    """uvicorn behind TLS listeners: its own TLS would wait up to a minute for a handshake."""

    def __init__(self, config: Config, remote: Remote) -> None:
        super().__init__(config, lambda: None)
        self._remote = remote
        self._listeners: list[TlsListener] = []
        self._together: Together | None = None
        self._open: list[asyncio.Task[None]] = []

    async def _startup(self, sockets: Sequence[socket.socket]) -> None:
        limits = Limits("connections are held", self._remote.bound)
        turned_away: set[Connection] = set()
        together = self._together = Together()

        def factory(authenticated: Callable[[], None]) -> asyncio.Protocol:
            return self._remote.connection(
                config=self.config,
                server_state=self.server_state,
                limits=limits,
                turned_away=turned_away,
                daemons=(),
                authenticated=authenticated,
                upgrades=() if self._remote.upgrade is None else (self._remote.upgrade,),
                together=together,
                **protocol_state(),
            )

        for one in self._remote.sockets:
            listener = TlsListener(one, self._remote.context, factory)
            self._listeners.append(listener)
            self._open.append(asyncio.get_running_loop().create_task(listener.run()))

    async def _shutdown(self, sockets: Sequence[socket.socket]) -> None:
        for running in self._open:
            running.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        try:
            await super()._shutdown(sockets)
        finally:
            for listener in self._listeners:
                listener.end()
            if self._together is not None:
                self._together.close()


def protocol_state() -> dict[str, Any]:
    """Return the further arguments of uvicorn's protocols: from 0.20 on the state of the app's lifespan."""
    return {"app_state": {}} if "app_state" in inspect.signature(HttpToolsProtocol).parameters else {}


async def serve(
    app: ASGIApp,
    sockets: Sequence[socket.socket],
    notifier: Notifier,
    stop_event: asyncio.Event,
    *,
    status: Callable[[], str],
    started: Callable[[], None],
    stopping: Callable[[], Awaitable[None]],
    daemons: Collection[int] = (),
    remote: Remote | None = None,
    quick: Mapping[Route[Any], Quick] = MappingProxyType({}),
    upgrades: Collection[str] = (),
    connection: Any = None,
) -> None:
    """Serve until `stop_event` is set, then end within GRACE.

    READY=1 is sent with the line of `status` once the sockets are served, and then `started` is called.
    `stopping` is awaited first when stopping, while the sockets are still served. `daemons` are the uids
    whose connections are kept when idle, and for which places are reserved. `quick` answers what it can of
    these routes, without the app. `upgrades` are the protocols that a request on a socket may upgrade to.
    `connection` makes the connections on `sockets` instead, without `daemons`, `quick` and `upgrades`.

    Long because of its arguments and their explanation.
    """

    def on_started() -> None:
        if not stop_event.is_set():
            notifier.ready(status())
            started()

    connections = connection or _connections(daemons, quick, upgrades)
    servers: list[_Server] = [_Server(uvicorn_config(app, connections), on_started)]
    if remote is not None:
        servers.insert(0, _RemoteServer(uvicorn_config(remote.app, remote.connection), remote))
    serving = asyncio.ensure_future(_serve_all(servers, sockets))
    waiting = asyncio.ensure_future(stop_event.wait())
    feeding = asyncio.ensure_future(_feed_watchdog(notifier))
    await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not serving.done():
        notifier.stopping("stopping")
        await stopping()
        await _end(servers, serving)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await serving
    finally:
        feeding.cancel()
        notifier.status("stopped")


async def _end(servers: Sequence[_Server], serving: asyncio.Future[None]) -> None:
    """Let requests in flight end within GRACE, and cancel the rest."""
    for server in servers:
        server.end()
    await asyncio.wait((serving,), timeout=GRACE)
    serving.cancel()
    unfinished = [task for server in servers for task in server.server_state.tasks]
    for task in unfinished:
        task.cancel()
    await asyncio.gather(*unfinished, return_exceptions=True)


def _connections(
    daemons: Collection[int], quick: Mapping[Route[Any], Quick], upgrades: Collection[str]
) -> Any:
    """Return the factory of connections: uvicorn's type is a class, but it only calls it."""
    limits = Limits("connections are held", CONNECTIONS, daemons)
    targets = {(route.method.encode(), route.path.encode()): answer for route, answer in quick.items()}
    return partial(
        QuickConnection,
        limits=limits,
        turned_away=set(),
        daemons=daemons,
        quick=targets,
        upgrades=upgrades,
    )


def uvicorn_config(app: ASGIApp, connection: Any) -> Config:
    """Return the configuration for an app; `connection` makes the protocol of a connection."""
    # Only options that both uvicorn 0.17 and 0.54 have. 0.17 logs each message if its loggers have no level.
    return Config(
        app, http=connection, ws="none", lifespan="off", log_config=None, log_level="warning",
        access_log=False, proxy_headers=False, server_header=False,
        timeout_keep_alive=int(DAEMON_IDLE_TIMEOUT),
    )  # fmt: skip


async def _serve_all(servers: Sequence[_Server], sockets: Sequence[socket.socket]) -> None:
    """Serve until all have ended; the last one gets the sockets, the others have their own."""
    *others, local = servers
    running = [asyncio.ensure_future(server.serve([])) for server in others]
    running.append(asyncio.ensure_future(local.serve(sockets)))
    try:
        await asyncio.gather(*running)
    finally:
        for server in running:
            server.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _feed_watchdog(notifier: Notifier) -> None:
    """Send WATCHDOG=1 from the event loop, so that systemd notices a loop that is stuck."""
    interval = watchdog_interval()
    while interval is not None:
        notifier.alive()
        await asyncio.sleep(interval)
