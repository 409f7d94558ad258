"""Hives on other machines as the queen reaches them: down the streams that they hold open.

A hive dials, always. What she asks goes down its stream as an event 'request', and comes back
as a request of the hive's (FleetRoutes.ANSWER) with the same id. A stream that ends tells of a
death at once; that a link was cut, beats tell by not coming.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Any

from rbee.client.answers import read_answer, refusal
from rbee.contracts import JOB_HEADER, Answer, Asked, HiveRoutes, Route, encode
from rbee.errors import ClonedHive, Disconnected, HiveNotOnline, RbeeError, TimedOut, TooMany, Unreachable

KEEP_ALIVE = 10.0
"""Seconds after which a stream that has nothing to say shows that it is there."""

PROBE_TIMEOUT = 2.0
"""Seconds in which a hive must answer for whom a second stream is opened, or the second is its own."""

ASKED_AT_ONCE = 64
"""Requests to one hive that wait for their answers."""


class Uplink:
    """One hive's stream. It is what a Link is to the local hive: ask() asks and returns the answer.

    `drop` ends its connection, whatever is under way on it.
    """

    def __init__(self, hive_id: str, instance: str, address: str, drop: Callable[[], None]) -> None:
        self.hive_id = hive_id
        self.instance = instance
        self.address = address
        self._drop = drop
        self._down: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._waiting: dict[str, asyncio.Future[tuple[int, bytes]]] = {}
        self._ended: Callable[[Uplink], None] = lambda uplink: None
        self._is_ended = False

    async def ask(
        self,
        route: Route[Answer],
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """As Link.ask(); a stream that ends meanwhile raises Disconnected."""
        assert body is None, "no request to a hive has a body"
        if self._is_ended:
            raise Disconnected(f"the connection of the beehive {self.hive_id} has closed")
        if len(self._waiting) >= ASKED_AT_ONCE:
            raise TooMany(f"{ASKED_AT_ONCE} requests to the beehive {self.hive_id} wait for answers")
        assert route.method != "DELETE"
        asked = Asked(secrets.token_hex(16), route.method, route.url(), (headers or {}).get(JOB_HEADER))
        answer = self._waiting[asked.id] = asyncio.get_running_loop().create_future()
        self._down.put_nowait(f"event: request\ndata: {json.dumps(encode(asked))}\n\n".encode())
        try:
            async with asyncio.timeout(timeout):
                status, content = await answer
        except TimeoutError as error:
            raise TimedOut(f"the beehive {self.hive_id} did not answer within {timeout:g} s") from error
        finally:
            del self._waiting[asked.id]
        if status >= 400:
            raise refusal(content, status)
        return read_answer(route, content, status)

    def answered(self, request_id: str, status: int, content: bytes) -> None:
        """An answer has come; nobody may wait for it any more."""
        waiting = self._waiting.get(request_id)
        if waiting is not None and not waiting.done():
            waiting.set_result((status, content))

    def not_answered(self, request_id: str, error: RbeeError) -> None:
        """An answer has come that the queen does not take."""
        waiting = self._waiting.get(request_id)
        if waiting is not None and not waiting.done():
            waiting.set_exception(Unreachable(f"the answer of the beehive {self.hive_id}: {error.message}"))

    def close(self) -> None:
        """Have the stream end in order."""
        self._down.put_nowait(None)

    def abort(self) -> None:
        """End it as a broken connection does."""
        self._drop()
        self._end()

    # The stream (rbee.server.responses.Chunks)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b": open\n\n"
        while True:
            try:
                async with asyncio.timeout(KEEP_ALIVE):
                    chunk = await self._down.get()
            except TimeoutError:
                chunk = b": open\n\n"
            if chunk is None:
                return
            yield chunk

    async def aclose(self) -> None:
        self._end()

    def when_ended(self, ended: Callable[[Uplink], None]) -> None:
        self._ended = ended

    def _end(self) -> None:
        if self._is_ended:
            return
        self._is_ended = True
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(
                    Disconnected(f"the connection of the beehive {self.hive_id} closed before it answered")
                )
        self._ended(self)


class Uplinks:
    """The streams there are: of each hive one. `closed` is called when a hive has none any more."""

    def __init__(self, closed: Callable[[Uplink], None]) -> None:
        self._closed = closed
        self._open: dict[str, Uplink] = {}
        self._comings: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def all(self) -> list[Uplink]:
        return list(self._open.values())

    def find(self, hive_id: str) -> Uplink | None:
        return self._open.get(hive_id)

    async def take(self, uplink: Uplink) -> None:
        """A hive's stream; it takes the place of one that is dead. ClonedHive where that one lives."""
        old = self._open.get(uplink.hive_id)
        if old is not None and old.instance != uplink.instance:
            await self.check_free(uplink.hive_id, uplink.address)
        old = self._open.get(uplink.hive_id)
        self._open[uplink.hive_id] = uplink
        uplink.when_ended(self._end)
        if old is not None:
            old.abort()
        self._comings.pop(uplink.hive_id, asyncio.Event()).set()

    async def check_free(self, hive_id: str, address: str) -> None:
        """ClonedHive where a hive of this name lives while another process comes as it, from that address."""
        old = self._open.get(hive_id)
        if old is not None and await _lives(old):
            raise ClonedHive(
                f"the beehive {hive_id} is at {old.address} already, and now also comes from {address}: "
                "one is a copy of the other",
                hint="On the copy: sudo rm /var/lib/rbee-hive/membership /etc/machine-id; "
                "sudo systemd-machine-id-setup; then let it join under a name of its own",
            )

    async def wait(self, hive_id: str, *, timeout: float) -> Uplink:
        """A hive's stream, as soon as there is one; HiveNotOnline after `timeout` seconds."""
        found = self._open.get(hive_id)
        if found is None:
            with suppress(TimeoutError):
                async with asyncio.timeout(timeout):
                    await self._comings[hive_id].wait()
            found = self._open.get(hive_id)
        if found is None:
            raise HiveNotOnline(
                f"the beehive {hive_id} is not connected", hint=f"On {hive_id}: systemctl status rbee-hive"
            )
        return found

    def drop(self, hive_id: str) -> None:
        """End a hive's stream, if it has one."""
        found = self._open.get(hive_id)
        if found is not None:
            found.abort()

    def close(self) -> None:
        """End all in order; the queen is going."""
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
