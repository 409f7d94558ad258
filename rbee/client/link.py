"""The daemons' way to each other: one kept connection, and what is asked over it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from rbee.client.answers import ANSWER_LIMIT, cannot_connect, os_error, read_answer, refusal
from rbee.errors import TimedOut, Unreachable
from rbee.scope import SYSTEM, Scope
from rbee.text import shown_span
from rbee.tls import QUEEN_NAME
from rbee.wire.codec import encode
from rbee.wire.devices import Devices, Sample
from rbee.wire.hives import Heartbeat, HeartbeatAck, HiveHealth
from rbee.wire.routes import JOB_HEADER, Answer, HiveRoutes, QueenRoutes, Route


@dataclass(frozen=True, slots=True)
class QueenAddress:
    """Where a queen on another machine listens. `context` decides whose certificate is accepted."""

    host: str
    port: int
    context: ssl.SSLContext

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Dialled(Protocol):
    """A place to which the other side dials. It is a network backend of httpcore's, and its words."""

    async def connect_tcp(self, *arguments: Any, **options: Any) -> Any: ...


class Link:
    """One kept connection of a daemon to the other; requests go over it one at a time.

    `timeout` in seconds bounds a request from its beginning to the last byte of its answer.
    """

    def __init__(
        self, place: Path | QueenAddress | Dialled, *, timeout: float, scope: Scope = SYSTEM
    ) -> None:
        import httpcore

        self._httpcore = httpcore
        self._place = place
        self._timeout = timeout
        self._scope = scope
        # The name that is in the queen's certificate; where she is, the backend knows.
        self._base = (
            f"https://{QUEEN_NAME}:{place.port}" if isinstance(place, QueenAddress) else "http://localhost"
        )
        self._towards: _Towards | None = None
        self._pool = self._new_pool()
        self._turn = asyncio.Lock()
        self._is_broken = False

    def _new_pool(self) -> Any:
        way: dict[str, Any]
        if isinstance(self._place, Path):
            way = {"uds": os.fspath(self._place)}
        elif not isinstance(self._place, QueenAddress):
            way = {"network_backend": self._place}
        else:
            self._towards = _Towards(self._place.host, _backend(self._httpcore))
            way = {"ssl_context": self._place.context, "network_backend": self._towards}
        # Above any interval between two heartbeats: httpcore would drop it at 5 s otherwise.
        return self._httpcore.AsyncConnectionPool(
            max_connections=1, max_keepalive_connections=1, keepalive_expiry=7200, **way
        )

    @property
    def is_open(self) -> bool:
        """Is there a connection that a request would go over, without making a new one?"""
        return any(link.is_idle() and not link.has_expired() for link in self._pool.connections)

    async def ask(
        self,
        route: Route[Answer],
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """The decoded answer of a route; TimedOut, Unreachable, or what the other side refused with."""
        span = self._timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(span), self._turn:
                if self._is_broken:
                    await self._discard()
                status, content = await self._exchange(route, body, headers or {})
        except TimeoutError as error:
            if self._is_broken:
                await self._discard()
            raise TimedOut(f"{self._place} did not answer within {shown_span(span)}") from error
        except (self._httpcore.NetworkError, self._httpcore.ProtocolError, OSError) as error:
            raise cannot_connect(self._place, os_error(error), self._scope) from error
        if status >= 400:
            raise refusal(content, status)
        return read_answer(route, content, status)

    @asynccontextmanager
    async def stream(
        self, route: Route[None], *, headers: dict[str, str], silence: float
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """The parts of a stream as they come, once its head has; `silence` in seconds bounds each wait.

        What breaks it off raises as ask() does; where it ends in order, so do the parts.
        """
        try:
            async with AsyncExitStack() as at_the_end:
                async with asyncio.timeout(self._timeout):
                    response = await at_the_end.enter_async_context(self._request(route, b"", headers))
                    if response.status >= 400:
                        raise refusal(await self._whole(response), response.status)
                yield self._parts(response, silence)
        except TimeoutError as error:
            raise TimedOut(f"{self._place} did not answer within {shown_span(self._timeout)}") from error
        except (self._httpcore.NetworkError, self._httpcore.ProtocolError, OSError) as error:
            raise cannot_connect(self._place, os_error(error), self._scope) from error
        finally:
            await self._discard()

    async def _parts(self, response: Any, silence: float) -> AsyncIterator[bytes]:
        parts = response.aiter_stream()
        while True:
            try:
                async with asyncio.timeout(silence):
                    part = await anext(parts, None)
            except TimeoutError as error:
                raise TimedOut(f"{self._place} was silent for {shown_span(silence)}") from error
            if part is None:
                return
            yield part

    async def _exchange(self, route: Route[Any], body: Any, headers: dict[str, str]) -> tuple[int, bytes]:
        sent = b""
        if body is not None:
            # What a stream's answer is made of is passed on as it is.
            sent = body if isinstance(body, bytes) else json.dumps(encode(body)).encode()
            headers = {**headers, "Content-Type": "application/json", "Content-Length": str(len(sent))}
        try:
            async with self._request(route, sent, headers) as response:
                return response.status, await self._whole(response)
        except asyncio.CancelledError:
            # A request cut off in its middle leaves a connection that nobody can use. It is not
            # closed here: anyio, which older versions of httpcore wait with, would cancel that, too.
            self._is_broken = True
            raise

    def _request(self, route: Route[Any], content: bytes, headers: dict[str, str]) -> Any:
        lines = {"Host": "localhost", **headers}
        values = {name: lines.pop(name) for name in re.findall(r"{(\w+)}", route.path)}
        return self._pool.stream(
            route.method,
            f"{self._base}{route.url(**values)}",
            headers=[(name.encode(), value.encode()) for name, value in lines.items()],
            content=content,
        )

    async def _whole(self, response: Any) -> bytes:
        content = b""
        async for part in response.aiter_stream():
            content += part
            if len(content) > ANSWER_LIMIT:
                raise Unreachable(f"the answer from {self._place} is larger than {ANSWER_LIMIT} bytes")
        return content

    async def _discard(self) -> None:
        self._is_broken = False
        pool, towards = self._pool, self._towards
        self._pool = self._new_pool()
        await _close(pool, towards)

    async def close(self) -> None:
        await _close(self._pool, self._towards)


class _Towards:
    """A backend of httpcore's that connects to one host, whatever name is in the URL and checked by TLS.

    The extension sni_hostname would do, but for httpcore 0.16, which does not know it.
    """

    def __init__(self, host: str, backend: Any) -> None:
        self._host = host
        self._backend = backend
        self._stream: Any = None

    async def connect_tcp(self, host: str, port: int, **options: Any) -> Any:
        await self.close()
        # In a task of its own. anyio 3.6 ends its other attempts to connect by cancelling the task that
        # waits, which asyncio.timeout() would take for somebody's cancellation, and it takes somebody's for a
        # connection that failed: whoever is told to stop would dial again.
        connecting = asyncio.ensure_future(self._backend.connect_tcp(self._host, port, **options))
        try:
            await asyncio.wait((connecting,))
        except asyncio.CancelledError:
            connecting.add_done_callback(_drop)
            connecting.cancel()
            raise
        self._stream = connecting.result()
        return self._stream

    async def close(self) -> None:
        """Close the connection; httpcore forgets one whose TLS handshake is cut off."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with suppress(Exception):  # what a backend raises on closing twice is its own affair
                await stream.aclose()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


def _backend(httpcore: Any) -> Any:
    if hasattr(httpcore, "AnyIOBackend"):
        return httpcore.AnyIOBackend()
    from httpcore.backends.asyncio import AsyncIOBackend  # before 0.18

    return AsyncIOBackend()


def _drop(connecting: asyncio.Future[Any]) -> None:
    """Close a connection that came when nobody waited for it any more."""
    if not connecting.cancelled() and connecting.exception() is None:
        asyncio.ensure_future(connecting.result().aclose())  # noqa: RUF006  # it ends at once


async def _close(pool: Any, towards: _Towards | None) -> None:
    await pool.aclose()
    if towards is not None:
        await towards.close()
    await asyncio.sleep(0)  # a transport closes its socket in the loop's next round


class Asking(Protocol):
    """A way to the other side: a Link, or the connections that a hive elsewhere dials."""

    async def ask(
        self,
        route: Route[Answer],
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> Answer: ...


class HiveClient:
    """What the queen asks of a hive, whatever link leads to it.

    `looks` is a link of its own for who looks: over `link` a detection may be under way for long.
    """

    def __init__(self, link: Asking, *, looks: Asking | None = None) -> None:
        self._link = link
        self._looks = looks or link

    async def health(self, *, timeout: float) -> HiveHealth:
        """Whose hive it is."""
        return await self._link.ask(HiveRoutes.HEALTH, timeout=timeout)

    async def devices(self, *, job_id: str | None, timeout: float) -> Devices:
        """Have the hive detect its devices; raises what the hive refused with."""
        headers = {JOB_HEADER: job_id} if job_id else {}
        return await self._link.ask(HiveRoutes.DEVICES, headers=headers, timeout=timeout)

    async def sample(self, *, timeout: float) -> Sample:
        """What the hive's machine does right now."""
        return await self._looks.ask(HiveRoutes.SAMPLE, timeout=timeout)

    async def shut_down(self, *, timeout: float) -> None:
        """Have the hive stop; it comes back by itself when its queen is there again."""
        await self._link.ask(HiveRoutes.SHUTDOWN, timeout=timeout)

    async def leave(self, *, timeout: float) -> None:
        """Have a hive on another machine forget its queen, and stop."""
        await self._link.ask(HiveRoutes.LEAVE, timeout=timeout)


class HeartbeatClient:
    """What a hive tells the queen."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def is_open(self) -> bool:
        return self._link.is_open

    async def beat(self, heartbeat: Heartbeat, *, timeout: float | None = None) -> HeartbeatAck:
        return await self._link.ask(QueenRoutes.HEARTBEAT, heartbeat, timeout=timeout)
