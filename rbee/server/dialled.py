"""Serves an app on connections that this program has dialled, over which the other side sends requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp
from uvicorn.server import ServerState

from rbee.server.connection import HIVE_CONNECTIONS, Connection
from rbee.server.limits import Limits
from rbee.server.peer import AnyPeer
from rbee.server.uvicorn import protocol_state, uvicorn_config

IDLE_TIMEOUT = 60.0
"""Seconds that such a connection is kept between two requests; the other side closes it before that."""


class DialledServer:
    """Serves an app with the same limits for requests and connections as serve().

    The caller bounds the number of connections, as it dials them.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._state = ServerState()
        self._options: dict[str, Any] = {
            "config": uvicorn_config(app, Connection),
            "server_state": self._state,
            "limits": Limits("connections are held", HIVE_CONNECTIONS),
            "turned_away": set(),
            "daemons": (),
            **protocol_state(),
        }

    def protocol(self, peer: AnyPeer, ended: Callable[[], None]) -> asyncio.Protocol:
        """Return the protocol that serves one connection to `peer`; `ended` is called at its end."""
        return _DialledConnection(peer=peer, ended=ended, **self._options)

    async def settle(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for requests in progress, then shut the connections down."""
        if self._state.tasks:
            await asyncio.wait(set(self._state.tasks), timeout=timeout)
        for connection in list(self._state.connections):
            connection.shutdown()

    async def end(self) -> None:
        """Abort all connections and cancel their requests."""
        for connection in list(self._state.connections):
            connection.transport.abort()
        tasks = list(self._state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _DialledConnection(Connection):
    def __init__(self, *arguments: Any, peer: AnyPeer, ended: Callable[[], None], **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._other_end = peer
        self._ended = ended

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._ended()

    def _find_peer(self) -> AnyPeer:
        return self._other_end

    def _take_place(self, peer: AnyPeer) -> bool:
        self._idle_timeout = IDLE_TIMEOUT
        return False
