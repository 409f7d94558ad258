"""The queen's end: the control connection of each remote hive, and the requests to it.

The end of a control connection shows a hive's death at once; a cut link shows only by missing beats.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from rbee.client.link import HiveClient, Link
from rbee.errors import (
    BadInput,
    ClonedHive,
    Disconnected,
    HiveNotOnline,
    RbeeError,
    TimedOut,
    TooMany,
)
from rbee.scope import HIVE_PROGRAM, REMOTE
from rbee.text import shown_span
from rbee.uplink.carried import Carried
from rbee.uplink.frames import Dial, Frame, Frames, Goodbye, refusal_of
from rbee.wire.heartbeats import Heartbeat, HeartbeatAck
from rbee.wire.routes import Answer, HiveRoutes, Route

log = logging.getLogger("rbee")

PROBE_TIMEOUT = 2.0
"""Seconds for a connected hive to answer when a second one of its name connects; then the first is dead."""

DIAL_TIMEOUT = 10.0
"""Seconds for a hive to dial a connection that the queen asked for; the request may have less."""

LAST_BEAT = 1.0
"""Seconds to process a beat that came before the end of its connection."""

CARRIERS_MAX = 8
"""Connections that a hive dials for requests, and so the requests that it processes at once."""

CARRIER_IDLE = 30.0
"""Seconds that such a connection is kept without a request."""

ASKED_AT_ONCE = 64
"""Requests to one hive that wait for their answers, including those that wait for a connection."""

LONGEST = 3600.0
"""Seconds for a request without a timeout."""

TakeBeat = Callable[[Heartbeat], Awaitable[HeartbeatAck]]

TakePlain = Callable[[Heartbeat], HeartbeatAck | None]
"""Takes a beat that changes nothing; returns None if it is another."""


def _none_is_plain(_beat: Heartbeat) -> None:
    return None


class Uplink(Frames):
    """One hive's control connection, with the interface of a Link: ask() sends a request to the hive.

    `take_beat` processes its beats; an RbeeError from it is sent to the hive as a refusal. `take_plain` is
    asked before, as a beat that changes nothing needs no task.
    """

    is_read_together = True

    def __init__(
        self,
        hive_id: str,
        instance: str,
        address: str,
        take_beat: TakeBeat,
        take_plain: TakePlain = _none_is_plain,
    ) -> None:
        super().__init__()
        self.hive_id = hive_id
        self.instance = instance
        self.address = address
        self._take_beat = take_beat
        self._take_plain = take_plain
        self._taking: asyncio.Task[None] | None = None
        self._dials: dict[str, asyncio.Future[Carried]] = {}
        self._idle: list[_Carrier] = []
        self._carriers: set[_Carrier] = set()
        self._turns = asyncio.Semaphore(CARRIERS_MAX)
        self._asked = 0
        self._ended: Callable[[Uplink], None] = lambda uplink: None
        self._is_ended = False

    # Requests to the hive

    @property
    def client(self) -> HiveClient:
        """A client for the hive."""
        return HiveClient(self, scope=REMOTE)

    async def ask(
        self,
        route: Route[Answer],
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """As Link.ask(). Raises Disconnected if the control connection ends, TooMany beyond ASKED_AT_ONCE."""
        try:
            async with asyncio.timeout(timeout), self._carrier() as link:
                try:
                    return await link.ask(route, body, headers=headers)
                except Disconnected as error:
                    raise self._has_closed() from error
        except TimeoutError as error:
            raise TimedOut(
                f"the beehive {self.hive_id} did not answer within {shown_span(timeout or LONGEST)}"
            ) from error

    @asynccontextmanager
    async def stream(
        self, route: Route[None], *, headers: dict[str, str], silence: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """As Link.stream()."""
        async with self._carrier() as link, link.stream(route, headers=headers, silence=silence) as parts:
            yield parts

    @asynccontextmanager
    async def _carrier(self) -> AsyncIterator[Link]:
        """Take an idle connection to the hive, or have it dial one, for the duration of the context."""
        if self._asked >= ASKED_AT_ONCE:
            raise TooMany(f"{ASKED_AT_ONCE} requests to the beehive {self.hive_id} wait for answers")
        self._asked += 1
        try:
            async with self._turns:
                self._check_open()
                carrier = self._idle.pop() if self._idle else _Carrier(self)
                carrier.keep()
                self._carriers.add(carrier)
                is_good = False
                try:
                    yield carrier.link
                    is_good = carrier.is_open and not self._is_ended
                finally:
                    if is_good:
                        self._idle.append(carrier)
                        carrier.expire(self._forget)
                    else:
                        self._forget(carrier)
        finally:
            self._asked -= 1

    def _has_closed(self) -> Disconnected:
        return Disconnected(f"the connection of the beehive {self.hive_id} closed before it answered")

    def _check_open(self) -> None:
        if self._is_ended:
            raise Disconnected(f"the connection of the beehive {self.hive_id} has closed")

    def _forget(self, carrier: _Carrier) -> None:
        self._carriers.discard(carrier)
        with suppress(ValueError):
            self._idle.remove(carrier)
        carrier.close()

    async def dialled(self) -> Carried:
        """Have the hive dial another connection and return it. Raises TimedOut or Disconnected."""
        self._check_open()
        dial_id = secrets.token_hex(16)
        coming: asyncio.Future[Carried] = asyncio.get_running_loop().create_future()
        self._dials[dial_id] = coming
        self.send(Dial(dial_id))
        try:
            async with asyncio.timeout(DIAL_TIMEOUT):
                return await coming
        except TimeoutError as error:
            raise TimedOut(
                f"the beehive {self.hive_id} was asked for a connection, and did not dial one "
                f"within {DIAL_TIMEOUT:g} s",
                hint=f"On {self.hive_id}: {REMOTE.journalctl(f'-u {HIVE_PROGRAM} -n 20')}",
            ) from error
        except asyncio.CancelledError:
            if coming.done() and not coming.cancelled() and coming.exception() is None:
                coming.result().close()
            raise
        finally:
            self._dials.pop(dial_id, None)
            coming.cancel()

    def take_carrier(self, dial_id: str) -> Carried:
        """Return the protocol for a connection that was asked for; HiveNotOnline if none waits for it."""
        coming = self._dials.pop(dial_id, None)
        if coming is None:
            message = f"no request waits for this connection of the beehive {self.hive_id}"
            raise HiveNotOnline(message, hint=None)
        return Carried(coming)

    # Frames from the hive

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._is_ended:
            transport.close()
            return
        for dial_id in self._dials:  # asked for while it connected
            self.send(Dial(dial_id))

    def received(self, frame: Frame) -> None:
        if not isinstance(frame, Heartbeat):
            raise BadInput("a hive may send beats only")
        if self._taking is not None:
            raise BadInput("a hive must wait for the answer to a beat before it sends the next")
        # If the hive does not read its acks, a task takes the beat, and the next is refused until its end.
        if self._stalled is None and (ack := self._take_plain(frame)) is not None:
            self.send(ack)
        else:
            self._taking = asyncio.get_running_loop().create_task(self._take(frame))

    async def _take(self, beat: Heartbeat) -> None:
        try:
            answer: Frame = await self._take_beat(beat)
        except RbeeError as error:
            answer = refusal_of(error)
        except Exception:
            log.exception("processing a beat of hive %s failed", self.hive_id)
            answer = refusal_of(RbeeError("internal error", hint="The journal has its traceback."))
        finally:
            self._taking = None
        self.send(answer)

    def broken(self, error: BadInput) -> None:
        self.send(refusal_of(error))
        if self.transport is not None:
            self.transport.close()

    # The end

    def close(self) -> None:
        """Say goodbye and end the connection."""
        self.send(Goodbye())
        if self.transport is not None:
            self.transport.close()
        self._end()

    def abort(self) -> None:
        """End the connection at once, without a goodbye."""
        if self.transport is not None:
            self.transport.abort()
        self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.transport = None
        if self._taking is None:
            self._end()
        else:  # its last beat has the reason for its end
            self._taking.add_done_callback(lambda _: self._end())
            asyncio.get_running_loop().call_later(LAST_BEAT, self._end)

    def when_ended(self, ended: Callable[[Uplink], None]) -> None:
        """Call `ended` at the end of the connection."""
        self._ended = ended

    def _end(self) -> None:
        if self._is_ended:
            return
        self._is_ended = True
        for coming in self._dials.values():
            if not coming.done():
                coming.set_exception(self._has_closed())
        for carrier in list(self._carriers):
            self._forget(carrier)
        self._ended(self)


class _Carrier:
    """One connection that a hive has dialled, and the Link over it, for which this is the network backend."""

    def __init__(self, uplink: Uplink) -> None:
        self._uplink = uplink
        self._stream: Carried | None = None
        self._expires: asyncio.TimerHandle | None = None
        self.link = Link(self, timeout=LONGEST, scope=REMOTE)

    def __str__(self) -> str:
        return f"the beehive {self._uplink.hive_id}"

    async def connect_tcp(self, *_arguments: Any, **_options: Any) -> Carried:
        """Return a connection that the hive dials; called by httpcore, whose host and port do not count."""
        self.close()
        self._stream = await self._uplink.dialled()
        return self._stream

    @property
    def is_open(self) -> bool:
        return self._stream is not None and not self._stream.is_over

    def expire(self, expired: Callable[[_Carrier], None]) -> None:
        """Call `expired` after CARRIER_IDLE seconds, unless keep() or close() is called before."""
        self._expires = asyncio.get_running_loop().call_later(CARRIER_IDLE, expired, self)

    def keep(self) -> None:
        if self._expires is not None:
            self._expires.cancel()
            self._expires = None

    def close(self) -> None:
        self.keep()
        if self._stream is not None:
            self._stream.close()


class Uplinks:
    """The control connections, at most one for each hive. `closed` is called when a hive's has ended."""

    def __init__(self, closed: Callable[[Uplink], None]) -> None:
        self._closed = closed
        self._open: dict[str, Uplink] = {}
        self._arrival = asyncio.Event()
        """Set, and replaced by another, when a hive connects."""

    def all(self) -> list[Uplink]:
        """Return all open connections."""
        return list(self._open.values())

    def find(self, hive_id: str) -> Uplink | None:
        """Return a hive's connection, or None."""
        return self._open.get(hive_id)

    async def take(self, uplink: Uplink) -> None:
        """Add a hive's connection in place of an earlier one; ClonedHive if another process holds that."""
        while (old := self._open.get(uplink.hive_id)) is not None and old.instance != uplink.instance:
            await self.check_free(uplink.hive_id, uplink.address)
            if self._open.get(uplink.hive_id) is old:  # and not another that came meanwhile
                break
        self._open[uplink.hive_id] = uplink
        uplink.when_ended(self._end)
        if old is not None:
            old.abort()
        self._arrival.set()
        self._arrival = asyncio.Event()

    async def check_free(self, hive_id: str, address: str) -> None:
        """Raise ClonedHive if a hive of this name is connected and alive; `address` is the newcomer's."""
        old = self._open.get(hive_id)
        if old is not None and await _lives(old):
            raise ClonedHive(
                f"the beehive {hive_id} is connected from {old.address} already, and now also connects from "
                f"{address}: one is a copy of the other",
                hint=f"On the copy: {REMOTE.as_root(f'rm {REMOTE.hive_state}/membership /etc/machine-id')}; "
                f"{REMOTE.as_root('systemd-machine-id-setup')}; then let it join under a name of its own",
            )

    async def wait(self, hive_id: str, *, timeout: float) -> Uplink:
        """Return a hive's connection as soon as there is one; HiveNotOnline after `timeout` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while hive_id not in self._open:
                    await self._arrival.wait()
        uplink = self._open.get(hive_id)
        if uplink is None:
            raise HiveNotOnline(
                f"the beehive {hive_id} is not connected",
                hint=f"On {hive_id}: {REMOTE.systemctl(f'status {HIVE_PROGRAM}')}",
            )
        return uplink

    def drop(self, hive_id: str) -> None:
        """Abort a hive's connection, if it has one."""
        uplink = self._open.get(hive_id)
        if uplink is not None:
            uplink.abort()

    def close(self) -> None:
        """Say goodbye on all connections and end them: the queen stops."""
        for uplink in self.all():
            uplink.close()

    def _end(self, uplink: Uplink) -> None:
        if self._open.get(uplink.hive_id) is uplink:
            del self._open[uplink.hive_id]
            self._closed(uplink)


async def _lives(uplink: Uplink) -> bool:
    try:
        await uplink.ask(HiveRoutes.HEALTH, timeout=PROBE_TIMEOUT)
    except RbeeError:
        return False
    return True
