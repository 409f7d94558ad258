"""The hive's end: its control connection to a remote queen, and the connections for the queen's requests."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial

from starlette.types import ASGIApp

from rbee import __version__
from rbee.client.link import QueenAddress
from rbee.errors import BadInput, Disconnected, RbeeError, TimedOut, Unreachable, from_problem
from rbee.scope import SYSTEM, Scope
from rbee.server.dialled import DialledServer
from rbee.server.peer import RemotePeer
from rbee.server.transport import TlsTransport
from rbee.tls import QUEEN_NAME
from rbee.uplink.dial import dial
from rbee.uplink.frames import Dial, Frame, Frames, Goodbye, UplinkRoutes
from rbee.wire.codec import encode
from rbee.wire.daemon import Problem
from rbee.wire.heartbeats import Heartbeat, HeartbeatAck
from rbee.wire.routes import INSTANCE_HEADER, VERSION_HEADER

log = logging.getLogger("rbee")

TIMEOUT = 5.0
"""Seconds for each beat's answer."""

DIAL_AGAIN = (0.2, 0.5, 1.0, 2.0, 2.0)
"""Seconds, less a random part, until a connection that broke while being made is dialled again."""

DIALLED_MAX = 16
"""Connections for the queen's requests, open or being dialled. A queen asks for at most 8."""

SETTLE_TIMEOUT = 1.0
"""Seconds for answers in progress when the hive stops."""

CLOSE_TIMEOUT = 0.5
"""Seconds for the queen to close those connections."""


class Offer:
    """Sends beats to a remote queen, and serves the hive's app to it, while a hold() lasts."""

    def __init__(self, queen: QueenAddress, scope: Scope = SYSTEM) -> None:
        self._queen = queen
        self._scope = scope
        self._control: _Control | None = None

    @property
    def is_open(self) -> bool:
        """Is there a connection over which a beat can be sent?"""
        return self._control is not None

    async def beat(self, heartbeat: Heartbeat, *, timeout: float | None = None) -> HeartbeatAck:
        """Send a beat and return its ack. One at a time.

        Raises the queen's refusal, Disconnected, or TimedOut after `timeout` seconds (TIMEOUT if None).
        """
        if self._control is None:
            raise Disconnected(f"there is no connection to {self._queen}")
        return await self._control.beat(heartbeat, TIMEOUT if timeout is None else timeout)

    @asynccontextmanager
    async def hold(self, instance: str, app: ASGIApp) -> AsyncIterator[asyncio.Future[None]]:
        """Hold a control connection, and serve `app` to the queen.

        Yields a future for its end: its result is None after the queen's goodbye, otherwise it raises.
        If the connection cannot be made, the queen's refusal or an error of the network is raised here.
        """
        server = DialledServer(app)
        control = _Control(self._queen, server, self._scope)
        headers = {INSTANCE_HEADER: instance, VERSION_HEADER: __version__}
        try:
            await dial(self._queen, UplinkRoutes.CONTROL, headers, control, scope=self._scope)
            self._control = control
            yield control.ended
        finally:
            if self._control is control:
                self._control = None
            control.end()
            await control.carriers_ended()
            await server.end()
            await asyncio.sleep(0)  # a transport closes its socket in the loop's next round

    async def settle(self) -> None:
        """Let answers in progress arrive, such as that to the request to stop."""
        if self._control is not None:
            await self._control.settle()


class _Control(Frames):
    def __init__(self, queen: QueenAddress, server: DialledServer, scope: Scope) -> None:
        super().__init__()
        self._scope = scope
        self.server = server
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queen = queen
        self._answer: asyncio.Future[HeartbeatAck] | None = None
        self._carriers: set[asyncio.Task[None]] = set()

    async def beat(self, heartbeat: Heartbeat, timeout: float) -> HeartbeatAck:
        if self.ended.done():
            raise Disconnected(f"the connection to {self._queen} has ended")
        answer: asyncio.Future[HeartbeatAck] = asyncio.get_running_loop().create_future()
        self._answer = answer
        self.send(heartbeat)
        try:
            async with asyncio.timeout(timeout):
                return await answer
        except TimeoutError as error:
            late = TimedOut(f"{self._queen} did not answer a beat within {timeout:g} s")
            self._over(late)  # otherwise the next beat would get this one's answer
            raise late from error
        finally:
            self._answer = None

    def received(self, frame: Frame) -> None:
        if isinstance(frame, Dial):
            self._dial(frame.id)
        elif isinstance(frame, Goodbye):
            self._over(None)
        elif isinstance(frame, HeartbeatAck):
            if self._answer is not None and not self._answer.done():
                self._answer.set_result(frame)
        elif isinstance(frame, Problem):
            error = from_problem(encode(frame))
            if self._answer is None or self._answer.done():
                self._over(error)
            else:
                self._answer.set_exception(error)
        else:
            raise BadInput("a queen must not send beats")

    def broken(self, error: BadInput) -> None:
        self._over(Unreachable(f"{self._queen} violates the protocol: {error.message}"))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._over(Disconnected(f"the connection to {self._queen} broke"))

    def end(self) -> None:
        self._over(None)
        if not self.ended.cancelled():
            self.ended.exception()  # retrieved, in case it was not awaited

    def _over(self, error: RbeeError | None) -> None:
        if not self.ended.done():
            if error is None:
                self.ended.set_result(None)
            else:
                self.ended.set_exception(error)
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or Disconnected(f"{self._queen} has ended the connection"))
        if self.transport is not None:
            self.transport.abort()

    # Connections for the queen's requests

    def _dial(self, dial_id: str) -> None:
        if len(self._carriers) >= DIALLED_MAX:
            log.warning("the queen asks for more than %d connections, which is refused", DIALLED_MAX)
            return
        task = asyncio.get_running_loop().create_task(self._carry(dial_id))
        self._carriers.add(task)
        task.add_done_callback(self._carriers.discard)

    async def _carry(self, dial_id: str) -> None:
        """Dial a connection and serve the app over it until it ends."""
        ended = asyncio.Event()
        protocol = self.server.protocol(RemotePeer(self._queen.host, QUEEN_NAME), ended.set)
        try:
            transport = await self._reach(dial_id, protocol)
        except RbeeError as error:
            log.warning("dialling a connection that the queen asked for failed: %s", error.message)
            return
        try:
            await ended.wait()
        finally:
            transport.abort()

    async def _reach(self, dial_id: str, protocol: asyncio.Protocol) -> TlsTransport:
        """Dial, and retry if the connection breaks: the queen limits unauthenticated connections."""
        once = partial(
            dial, self._queen, UplinkRoutes.CARRIER, {}, protocol, scope=self._scope, dial_id=dial_id
        )
        for wait in DIAL_AGAIN:
            with suppress(Disconnected):
                return await once()
            await asyncio.sleep(wait * random.uniform(0.5, 1))
        return await once()

    async def settle(self) -> None:
        await self.server.settle(SETTLE_TIMEOUT)
        # They end before the control connection, whose end aborts all of them at the queen.
        if self._carriers:
            await asyncio.wait(set(self._carriers), timeout=CLOSE_TIMEOUT)

    async def carriers_ended(self) -> None:
        for task in list(self._carriers):
            task.cancel()
        await asyncio.gather(*self._carriers, return_exceptions=True)
