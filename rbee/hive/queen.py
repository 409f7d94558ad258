"""A hive's queen as the hive sees it: where heartbeats go, and what the hive does for it until it stops."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from starlette.types import ASGIApp

from rbee.client.link import HeartbeatClient, Link
from rbee.hive.heartbeat import Beats, Heart
from rbee.scope import Scope
from rbee.wire.heartbeats import MachineEnd

BEAT_TIMEOUT = 5.0
"""Seconds that a beat may take, its answer included."""

FindMachineEnd = Callable[[], MachineEnd | None]


class Queen(ABC):
    """`name` is the queen in the hive's status and health: a socket's path, or HOST:PORT."""

    status_after_shutdown = 0
    """The exit status of a hive that its queen has shut down."""

    forget: Callable[[], None] | None = None
    """Forget the queen for good, from any thread; None for that of this machine. Raises RbeeError."""

    def __init__(self, hive_id: str, name: str, beats: Beats) -> None:
        self.hive_id = hive_id
        self.name = name
        self.beats = beats

    @abstractmethod
    async def work(self, heart: Heart, app: ASGIApp) -> None:
        """Send heartbeats until cancelled; on connections to a remote queen, serve it `app`."""

    @abstractmethod
    def farewell(self, heart: Heart, find_machine_end: FindMachineEnd) -> AbstractAsyncContextManager[None]:
        """Send the last heartbeat, before or after the body, which ends work()."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connections to the queen that outlast work()."""


class LocalQueen(Queen):
    """The queen of this machine, over its Unix socket."""

    def __init__(self, hive_id: str, path: Path, scope: Scope) -> None:
        self._link = Link(path, timeout=BEAT_TIMEOUT, scope=scope)
        super().__init__(hive_id, str(path), HeartbeatClient(self._link))

    async def work(self, heart: Heart, app: ASGIApp) -> None:
        await heart.run()

    @asynccontextmanager
    async def farewell(self, heart: Heart, find_machine_end: FindMachineEnd) -> AsyncIterator[None]:
        # After: a beat in flight may wait on a socket that systemd holds back while it stops us.
        yield
        await heart.goodbye(find_machine_end)

    async def close(self) -> None:
        await self._link.close()
