"""The hive's end: its control connection to a queen elsewhere, and the connections over which she asks."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.types import ASGIApp

from rbee import __version__
from rbee.client.link import QueenAddress
from rbee.errors import BadInput, Disconnected, RbeeError, TimedOut, Unreachable, from_problem
from rbee.server.dialled import DialledServer
from rbee.server.peer import RemotePeer
from rbee.server.transport import TlsTransport
from rbee.tls import QUEEN_NAME
from rbee.uplink.dial import dial
from rbee.uplink.frames import Dial, Frame, Frames, Goodbye, UplinkRoutes
from rbee.wire.codec import encode
from rbee.wire.daemon import Problem
from rbee.wire.hives import Heartbeat, HeartbeatAck
from rbee.wire.routes import INSTANCE_HEADER, VERSION_HEADER

log = logging.getLogger("rbee")

TIMEOUT = 5.0
"""Seconds for each beat's answer."""

DIAL_AGAIN = (0.2, 0.5, 1.0, 2.0, 2.0)
"""Seconds, less a random part, until a connection that broke before it was there is dialled again."""

DIALLED_MAX = 16
"""Connections for the queen's requests that are there, or are being dialled, at once. She asks for 8."""

SETTLE_TIMEOUT = 1.0
"""Seconds that answers have before the hive stops."""

CLOSE_TIMEOUT = 0.5
"""Seconds that the queen has to close those connections, too."""


class Offer:
    """What a hive offers its queen: beats, and its app for her to ask. Beats go up while hold() lasts."""

    def __init__(self, queen: QueenAddress) -> None:
        self._queen = queen
        self._control: _Control | None = None

    @property
    def is_open(self) -> bool:
        """Is there a connection that a beat would go over?"""
        return self._control is not None

    async def beat(self, heartbeat: Heartbeat, *, timeout: float | None = None) -> HeartbeatAck:
        """Send a beat, and await its ack, or raise the queen's refusal. One at a time."""
        if self._control is None:
            raise Disconnected(f"there is no connection to {self._queen}")
        return await self._control.beat(heartbeat, TIMEOUT if timeout is None else timeout)

    @asynccontextmanager
    async def hold(self, instance: str, app: ASGIApp) -> AsyncIterator[asyncio.Future[None]]:
        """A control connection, over which the queen is offered `app`.

        It is awaited what is yielded: its end, with None where the queen has said goodbye. What keeps the
        connection from being raises here: a refusal of the queen's, or what there is to say of the network.
        """
        server = DialledServer(app)
        control = _Control(self._queen, server)
        headers = {INSTANCE_HEADER: instance, VERSION_HEADER: __version__}
        try:
            await dial(self._queen, UplinkRoutes.CONTROL, headers, control)
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
        """Let answers that are on their way arrive, that to being told to stop for one."""
        if self._control is not None:
            await self._control.settle()


class _Control(Frames):
    def __init__(self, queen: QueenAddress, server: DialledServer) -> None:
        super().__init__()
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
            self._over(late)  # the next beat would take its answer for its own
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
            raise BadInput("a queen sends no beats")

    def broken(self, error: BadInput) -> None:
        self._over(Unreachable(f"{self._queen} does not speak as agreed: {error.message}"))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._over(Disconnected(f"the connection to {self._queen} broke"))

    def end(self) -> None:
        self._over(None)
        if not self.ended.cancelled():
            self.ended.exception()  # which nobody may have waited for

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

    # What she asks over

    def _dial(self, dial_id: str) -> None:
        if len(self._carriers) >= DIALLED_MAX:
            log.warning("the queen asks for more than %d connections, and has no more of them", DIALLED_MAX)
            return
        task = asyncio.get_running_loop().create_task(self._carry(dial_id))
        self._carriers.add(task)
        task.add_done_callback(self._carriers.discard)

    async def _carry(self, dial_id: str) -> None:
        """Dial a connection, and serve the app over it until it ends."""
        ended = asyncio.Event()
        protocol = self.server.protocol(RemotePeer(self._queen.host, QUEEN_NAME), ended.set)
        try:
            transport = await self._reach(dial_id, protocol)
        except RbeeError as error:
            log.warning("a connection that the queen asked for was not to be had: %s", error.message)
            return
        try:
            await ended.wait()
        finally:
            transport.abort()

    async def _reach(self, dial_id: str, protocol: asyncio.Protocol) -> TlsTransport:
        """Dial, and again where it broke: she has room for so many strangers of one address at once."""
        for wait in DIAL_AGAIN:
            with suppress(Disconnected):
                return await dial(self._queen, UplinkRoutes.CARRIER, {}, protocol, dial_id=dial_id)
            await asyncio.sleep(wait * random.uniform(0.5, 1))
        return await dial(self._queen, UplinkRoutes.CARRIER, {}, protocol, dial_id=dial_id)

    async def settle(self) -> None:
        await self.server.settle(SETTLE_TIMEOUT)
        # Read to their ends before that of this one, which ends all for the queen.
        if self._carriers:
            await asyncio.wait(set(self._carriers), timeout=CLOSE_TIMEOUT)

    async def carriers_ended(self) -> None:
        for task in list(self._carriers):
            task.cancel()
        await asyncio.gather(*self._carriers, return_exceptions=True)
