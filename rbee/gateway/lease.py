"""Leases of workers from the queen, which outlive the queen's restarts."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from rbee.client.handover import Handover, handover
from rbee.errors import Disconnected, RbeeError, StillWaiting, Unreachable, from_problem
from rbee.scope import Scope
from rbee.text import shown_span
from rbee.wire.leases import LEASE_PROTOCOL, Ask, Frame, Granted, Refused, Wait
from rbee.wire.routes import LeaseRoutes

CONNECT_TIMEOUT = 30.0
"""Seconds for the queen to accept a connection: systemd may have to start it."""

LATE = 5.0
"""Seconds after the hold within which the queen must have granted or refused."""

STOPS_WITHIN = 6.0
"""Seconds within which a queen that has closed a lease stops: a little more than TimeoutStopSec=."""

RETRY_FIRST, RETRY_MOST = 0.1, 2.0
"""Seconds between two attempts to reach a queen that restarts."""


class NotGranted(Exception):
    """The queen has refused a lease; `retry_s` is when it may be worth asking again."""

    def __init__(self, error: RbeeError, retry_s: int | None) -> None:
        super().__init__(error.message)
        self.error = error
        self.retry_s = retry_s


class Lease:
    """A worker that is held for one request, and the connection to its engine."""

    def __init__(self, path: Path, scope: Scope, ask: Ask, queen_run: Callable[[], str | None]) -> None:
        self._path = path
        self._scope = scope
        self._ask = ask
        self._queen_run = queen_run
        self._queen = AsyncExitStack()
        self._connection: Handover | None = None
        self._granted: Granted | None = None
        self._engine: socket.socket | None = None

    @property
    def granted(self) -> Granted:
        """What the queen has granted."""
        assert self._granted is not None
        return self._granted

    def take_engine(self) -> socket.socket:
        """Return the connection to the engine, which the caller closes."""
        engine, self._engine = self._engine, None
        assert engine is not None
        return engine

    async def acquire(self, waited: Callable[[Wait], None]) -> None:
        """Wait for a worker, at most as long as the Ask says. Raises NotGranted, or RbeeError."""
        most = self._ask.hold_ms / 1000 + LATE
        last: Wait | None = None

        def note(wait: Wait) -> None:
            nonlocal last
            last = wait
            waited(wait)

        try:
            async with asyncio.timeout(most):
                await self._acquire(note)
        except TimeoutError as error:
            state = "the queen has not reported why" if last is None else describe_wait(last)
            message = f"no worker of {self._ask.model} was ready within {shown_span(most)}: {state}"
            raise NotGranted(StillWaiting(message, hint="Try again."), None) from error

    async def _acquire(self, waited: Callable[[Wait], None]) -> None:
        pauses = _pauses()
        while True:
            try:
                await self._connect(self._ask)
                await self._await_grant(waited)
                return
            except Disconnected:  # it restarts
                await asyncio.sleep(next(pauses))

    async def _await_grant(self, waited: Callable[[Wait], None]) -> None:
        assert self._connection is not None
        while True:
            frame = await self._connection.receive()
            if isinstance(frame, Wait):
                waited(frame)
            elif isinstance(frame, Refused):
                raise NotGranted(from_problem(frame.problem), frame.retry_s)
            elif isinstance(frame, Granted):
                self._engine = self._connection.take()
                self._granted = frame
                return
            else:
                raise Unreachable("the queen sent an Ask instead of an answer")

    async def hold(self) -> RbeeError:
        """Hold the lease, and resume it with each new queen; return why a queen has ended it."""
        assert self._connection is not None
        while True:
            try:
                frame = await self._connection.receive()
            except RbeeError:
                frame = await self._resume()
            if isinstance(frame, Refused):
                return from_problem(frame.problem)

    async def _resume(self) -> Frame:
        """Resume the lease with the next queen, once that is awake.

        A queen that has closed the connection is probably stopping, and a new connection would wake it again:
        it has STOPS_WITHIN seconds to stop.
        """
        loop = asyncio.get_running_loop()
        lost, stops_by = self._queen_run(), loop.time() + STOPS_WITHIN
        pauses = _pauses()
        while True:
            await asyncio.sleep(next(pauses))
            run = self._queen_run()
            if run is None or (run == lost and loop.time() < stops_by):
                continue
            try:
                await self._connect(self._ask._replace(resume=self.granted.worker))
                assert self._connection is not None
                return await self._connection.receive()
            except RbeeError:
                continue  # until the request ends, and this is cancelled

    async def _connect(self, ask: Ask) -> None:
        await self._queen.aclose()
        connecting = handover(
            self._path, LeaseRoutes.LEASE.path, LEASE_PROTOCOL, timeout=CONNECT_TIMEOUT, scope=self._scope
        )
        self._connection = await self._queen.enter_async_context(connecting)
        await self._connection.send(ask)

    async def close(self) -> None:
        """End the lease."""
        if self._engine is not None:
            self._engine.close()
        await self._queen.aclose()


@asynccontextmanager
async def lease(
    path: Path,
    scope: Scope,
    ask: Ask,
    waited: Callable[[Wait], None],
    *,
    queen_run: Callable[[], str | None],
) -> AsyncIterator[Lease]:
    """Yield the lease that the queen at `path` grants; it ends with the context.

    `waited` gets each Wait. `queen_run` returns the invocation ID of the queen, None while it sleeps, without
    waking it. Raises NotGranted, or RbeeError if the queen cannot be asked.
    """
    held = Lease(path, scope, ask, queen_run)
    try:
        await held.acquire(waited)
        yield held
    finally:
        await held.close()


def describe_wait(wait: Wait) -> str:
    """Return why a request waits, and how far its worker is."""
    return wait.text if wait.percent is None else f"{wait.text}, {wait.percent:.0f} %"


def _pauses() -> Iterator[float]:
    """Yield the seconds before each attempt; at random, so that not all requests come at once."""
    pause = RETRY_FIRST
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(2 * pause, RETRY_MOST)
