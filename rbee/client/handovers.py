"""Connections of rbee.client.handover that are kept for one use after the other."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from rbee.client.handover import Handover, open_handover
from rbee.errors import TimedOut, from_problem
from rbee.scope import SYSTEM, Scope
from rbee.text import shown_span
from rbee.wire.leases import CONNECT_PROTOCOL, Connect, Refused
from rbee.wire.routes import HiveRoutes

KEPT = 8
"""Connections that are kept while they are not in use."""


class Handovers:
    """The connections to one Unix socket for one protocol; opening one costs more than using it."""

    def __init__(self, path: Path, protocol: str, *, scope: Scope = SYSTEM) -> None:
        self.path = path
        self._protocol = protocol
        self._scope = scope
        self._kept: list[Handover] = []

    def take(self) -> Handover | None:
        """Return a kept connection, None if there is none; those that have ended are closed."""
        while self._kept:
            connection = self._kept.pop()
            if connection.is_quiet:
                return connection
            connection.close()
        return None

    async def open(self, target: str, *, timeout: float) -> Handover:
        """Return a new connection, as open_handover()."""
        return await open_handover(self.path, target, self._protocol, timeout=timeout, scope=self._scope)

    def keep(self, connection: Handover) -> None:
        """Keep a connection that was used, or close it if KEPT are kept already."""
        if len(self._kept) < KEPT:
            self._kept.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        """Close the kept connections."""
        while self._kept:
            self._kept.pop().close()


class EngineConnections(Handovers):
    """The connections to a hive over which it hands over connections to its workers' engines."""

    def __init__(self, path: Path, *, scope: Scope = SYSTEM) -> None:
        super().__init__(path, CONNECT_PROTOCOL, scope=scope)

    async def to(self, worker_id: str, *, timeout: float) -> socket.socket:
        """Return a connection to a worker's engine, which the caller closes.

        Raises as open_handover(), and the hive's refusal.
        """
        connection = self.take()
        is_new = connection is None
        if connection is None:
            connection = await self.open(HiveRoutes.CONNECT.url(worker_id=worker_id), timeout=timeout)
        try:
            async with asyncio.timeout(timeout):
                if not is_new:
                    await connection.send(Connect(worker_id))
                frame = await connection.receive()
            engine = None if isinstance(frame, Refused) else connection.take()
        except TimeoutError as error:
            connection.close()
            raise TimedOut(f"{self.path} sent no connection within {shown_span(timeout)}") from error
        except BaseException:
            connection.close()
            raise
        self.keep(connection)
        if engine is None:
            assert isinstance(frame, Refused)
            raise from_problem(frame.problem)
        return engine
