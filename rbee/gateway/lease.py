"""Leases of workers from the queen, which outlive the queen's restarts."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

from rbee.client.handover import Handover
from rbee.client.handovers import Handovers
from rbee.errors import Disconnected, RbeeError, StillWaiting, Unreachable, from_problem
from rbee.scope import Scope
from rbee.text import shown_span
from rbee.wire.leases import LEASE_PROTOCOL, Ask, End, Frame, Granted, Refused, Wait
from rbee.wire.routes import LeaseRoutes

CONNECT_TIMEOUT = 30.0
"""Seconds for the queen to accept a connection: systemd may have to start it."""

LATE = 5.0
"""Seconds after the hold within which the queen must have granted or refused."""

STOPS_WITHIN = 6.0
"""Seconds within which a queen that has closed a lease stops: a little more than TimeoutStopSec=."""

END_TIMEOUT = 5.0
"""Seconds for the queen to confirm the end of a lease; its connection is kept then."""

RETRY_FIRST, RETRY_MOST = 0.1, 2.0
"""Seconds between two attempts to reach a queen that restarts."""


class NotGranted(Exception):
    """The queen has refused a lease; `retry_s` is when it may be worth asking again."""

    def __init__(self, error: RbeeError, retry_s: int | None) -> None:
        super().__init__(error.message)
        self.error = error
        self.retry_s = retry_s


class QueenConnections(Handovers):
    """The connections to the queen that hold leases; the queen counts those that are kept for none."""

    def __init__(self, path: Path, *, scope: Scope) -> None:
        super().__init__(path, LEASE_PROTOCOL, scope=scope)
        self._ending: set[asyncio.Task[None]] = set()

    async def ask(self, ask: Ask) -> Handover:
        """Return a connection over which the queen was asked for a lease."""
        connection = self.take() or await self.open(LeaseRoutes.LEASE.path, timeout=CONNECT_TIMEOUT)
        try:
            await connection.send(ask)
        except BaseException:
            connection.close()
            raise
        return connection

    def end(self, connection: Handover) -> None:
        """End the lease that a connection holds, in the background, and keep the connection."""
        ending = asyncio.ensure_future(self._end(connection))
        self._ending.add(ending)
        ending.add_done_callback(self._ending.discard)

    async def _end(self, connection: Handover) -> None:
        is_confirmed = False
        try:
            async with asyncio.timeout(END_TIMEOUT):
                await connection.send(End())
                # A Refused may have been on its way, and would be taken for the answer to the next Ask.
                is_confirmed = isinstance(await connection.receive(), End)
        except (RbeeError, TimeoutError):
            pass  # it stops, or has closed the lease at the same time
        finally:
            if is_confirmed:
                self.keep(connection)
            else:
                connection.close()

    def close(self) -> None:
        """Close the connections, but for those of leases, which close their own."""
        for ending in self._ending:
            ending.cancel()
        super().close()


class Lease:
    """A worker that is held for one request, and the connection to its engine."""

    def __init__(self, queen: QueenConnections, ask: Ask, queen_run: Callable[[], str | None]) -> None:
        self._queen = queen
        self._ask = ask
        self._queen_run = queen_run
        self._is_held = False
        """Has this queen granted the lease, and not ended it?"""
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
                self._is_held = True
                return
            else:
                raise Unreachable("the queen has not answered the Ask, but sent another frame")

    async def hold(self) -> RbeeError:
        """Hold the lease, and resume it with each new queen; return why a queen has ended it."""
        assert self._connection is not None
        while True:
            try:
                frame = await self._connection.receive()
            except RbeeError:
                self._is_held = False
                frame = await self._resume()
                self._is_held = isinstance(frame, Granted)
            if isinstance(frame, Refused):
                self._is_held = False
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
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._connection = await self._queen.ask(ask)

    def close(self) -> None:
        """End the lease."""
        if self._engine is not None:
            self._engine.close()
        if self._connection is None:
            return
        if self._is_held:
            self._queen.end(self._connection)
        else:
            self._connection.close()


@asynccontextmanager
async def lease(
    queen: QueenConnections,
    ask: Ask,
    waited: Callable[[Wait], None],
    *,
    queen_run: Callable[[], str | None],
) -> AsyncIterator[Lease]:
    """Yield the lease that the queen grants; it ends with the context.

    `waited` gets each Wait. `queen_run` returns the invocation ID of the queen, None while it sleeps, without
    waking it. Raises NotGranted, or RbeeError if the queen cannot be asked.
    """
    held = Lease(queen, ask, queen_run)
    try:
        await held.acquire(waited)
        yield held
    finally:
        held.close()


def describe_wait(wait: Wait) -> str:
    """Return why a request waits, and how far its worker is."""
    return wait.text if wait.percent is None else f"{wait.text}, {wait.percent:.0f} %"


def _pauses() -> Iterator[float]:
    """Yield the seconds before each attempt; at random, so that not all requests come at once."""
    pause = RETRY_FIRST
    while True:
        yield pause * random.uniform(0.5, 1.0)
        pause = min(2 * pause, RETRY_MOST)
