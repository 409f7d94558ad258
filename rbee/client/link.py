"""The daemons' clients for each other: one kept connection, and the requests over it."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import quote, urlencode

from rbee.client.answers import ANSWER_LIMIT, cannot_connect, os_error, read_answer, refusal
from rbee.errors import HiveFailed, TimedOut, Unreachable
from rbee.scope import SYSTEM, Scope
from rbee.text import shown_span
from rbee.tls import QUEEN_NAME
from rbee.wire.codec import encode
from rbee.wire.routes import JOB_HEADER, WAIT_MAX, Answer, HiveRoutes, QueenRoutes, Route

if TYPE_CHECKING:
    from rbee.client.handovers import EngineConnections
    from rbee.wire.devices import Devices
    from rbee.wire.engines import Engines
    from rbee.wire.heartbeats import Heartbeat, HeartbeatAck, HiveHealth
    from rbee.wire.models import Fetch, FetchView
    from rbee.wire.samples import Sample
    from rbee.wire.workers import AskEstimate, Estimate, HiveWorker, HiveWorkers, Memory, StartWorker


class QueenAddress(NamedTuple):
    """The address of a queen on another machine. `context` decides which certificate is accepted."""

    host: str
    port: int
    context: ssl.SSLContext

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Dialled(Protocol):
    """A network backend of httpcore for connections that the other side dials; str() names it in messages."""

    async def connect_tcp(self, *arguments: Any, **options: Any) -> Any:
        """Return a connection, whatever the address."""


class Link:
    """One kept connection of a daemon to another; requests are sent one at a time.

    `timeout` in seconds bounds a request from its start to the last byte of its answer.
    """

    def __init__(
        self, place: Path | QueenAddress | Dialled, *, timeout: float, scope: Scope = SYSTEM
    ) -> None:
        self._place = place
        self._timeout = timeout
        self._scope = scope
        # The name in the queen's certificate; the backend has its address.
        self._base = (
            f"https://{QUEEN_NAME}:{place.port}" if isinstance(place, QueenAddress) else "http://localhost"
        )
        self._towards: _Towards | None = None
        self._turn = asyncio.Lock()
        self._is_broken = False

    @cached_property
    def _httpcore(self) -> Any:
        # With the first request, or prepare(): a daemon's start does not wait for it.
        import httpcore

        return httpcore

    async def prepare(self) -> None:
        """Import what the first request needs: httpcore, and what anyio has for its locks (rbee.later)."""
        import anyio

        _ = self._pool, anyio.Lock()

    @cached_property
    def _pool(self) -> Any:
        return self._new_pool()

    def _new_pool(self) -> Any:
        way: dict[str, Any]
        if isinstance(self._place, Path):
            way = {"uds": os.fspath(self._place)}
        elif not isinstance(self._place, QueenAddress):
            way = {"network_backend": self._place}
        else:
            self._towards = _Towards(self._place.host, _backend(self._httpcore))
            way = {"ssl_context": self._place.context, "network_backend": self._towards}
        # Longer than any interval between two heartbeats: httpcore would close it after 5 s.
        return self._httpcore.AsyncConnectionPool(
            max_connections=1, max_keepalive_connections=1, keepalive_expiry=7200, **way
        )

    @property
    def is_open(self) -> bool:
        """Would a request use a connection that is open already?"""
        return "_pool" in vars(self) and any(
            link.is_idle() and not link.has_expired() for link in self._pool.connections
        )

    async def ask(
        self,
        route: Route[Answer],
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """Send a request and return the decoded answer.

        The values of each {name} in the path, and of the route's query, are among the headers. Raises
        TimedOut, Unreachable, or the other side's refusal.
        """
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
        """Yield the parts of a stream, once its head has come; `silence` in seconds bounds each wait.

        The parts end with the stream; a failure raises as in ask().
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
            # bytes are sent as they are.
            sent = body if isinstance(body, bytes) else json.dumps(encode(body)).encode()
            headers = {**headers, "Content-Type": "application/json", "Content-Length": str(len(sent))}
        try:
            async with self._request(route, sent, headers) as response:
                return response.status, await self._whole(response)
        except asyncio.CancelledError:
            # A cancelled request leaves an unusable connection. It is not closed here: anyio, which older
            # versions of httpcore use, would cancel that too.
            self._is_broken = True
            raise

    def _request(self, route: Route[Any], content: bytes, headers: dict[str, str]) -> Any:
        lines = {"Host": "localhost", **headers}
        values = {name: quote(lines.pop(name), safe="") for name in re.findall(r"{(\w+)}", route.path)}
        query = urlencode({name: lines.pop(name) for name, _ in route.query if name in lines})
        return self._pool.stream(
            route.method,
            f"{self._base}{route.url(**values)}{'?' if query else ''}{query}",
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
        """Close the connection."""
        if "_pool" in vars(self):
            await _close(self._pool, self._towards)


class _Towards:
    """A backend of httpcore that connects to one host, whatever name is in the URL and checked by TLS.

    The extension sni_hostname would serve, but httpcore 0.16 does not have it.
    """

    def __init__(self, host: str, backend: Any) -> None:
        self._host = host
        self._backend = backend
        self._stream: Any = None

    async def connect_tcp(self, host: str, port: int, **options: Any) -> Any:
        await self.close()
        # In a separate task. anyio 3.6 ends its other attempts to connect by cancelling the waiting task,
        # which asyncio.timeout() would take for a real cancellation, and it takes a real one for a failed
        # connection: a daemon that stops would dial again.
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
            with suppress(Exception):  # backends may raise if closed twice
                await stream.aclose()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


def _backend(httpcore: Any) -> Any:
    if hasattr(httpcore, "AnyIOBackend"):
        return httpcore.AnyIOBackend()
    from httpcore.backends.asyncio import AsyncIOBackend  # before 0.18

    return AsyncIOBackend()


def _drop(connecting: asyncio.Future[Any]) -> None:
    """Close a connection that came after its request was cancelled."""
    if not connecting.cancelled() and connecting.exception() is None:
        asyncio.ensure_future(connecting.result().aclose())  # noqa: RUF006  # it ends at once


async def _close(pool: Any, towards: _Towards | None) -> None:
    await pool.aclose()
    if towards is not None:
        await towards.close()
    await asyncio.sleep(0)  # a transport closes its socket in the loop's next round


class Asking(Protocol):
    """Sends requests: a Link, or an Uplink with the connections that a remote hive dials."""

    async def ask(
        self,
        route: Route[Answer],
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """As Link.ask()."""


class HiveClient:
    """The queen's requests to a hive. Timeouts are in seconds; all raise as Link.ask().

    `sample_link` is a separate link for samples, which must not wait for a detection on `link`; nor may
    requests for models, which may take long and come several at once: they use `work_links`. `local` is the
    socket of a hive on this machine, which can hand connections over.
    """

    def __init__(
        self,
        link: Asking,
        *,
        sample_link: Asking | None = None,
        work_links: Asking | None = None,
        local: Path | None = None,
        scope: Scope = SYSTEM,
    ) -> None:
        self._scope = scope
        self._link = link
        self._local = local
        self._sample_link = sample_link or link
        self._work_links = work_links or link
        self._engines: EngineConnections | None = None

    async def health(self, *, timeout: float) -> HiveHealth:
        """Return the identity of the hive, and of its queen."""
        return await self._link.ask(HiveRoutes.HEALTH, timeout=timeout)

    async def devices(self, *, job_id: str | None, timeout: float) -> Devices:
        """Have the hive detect its devices, for a job if `job_id` is given."""
        headers = {JOB_HEADER: job_id} if job_id else {}
        return await self._link.ask(HiveRoutes.DEVICES, headers=headers, timeout=timeout)

    async def sample(self, *, timeout: float) -> Sample:
        """Return a sample of the hive's machine."""
        return await self._sample_link.ask(HiveRoutes.SAMPLE, timeout=timeout)

    async def shut_down(self, *, timeout: float) -> None:
        """Have the hive stop; it starts by itself when its queen is back."""
        await self._link.ask(HiveRoutes.SHUTDOWN, timeout=timeout)

    async def leave(self, *, timeout: float) -> None:
        """Have a remote hive forget its queen, and stop."""
        await self._link.ask(HiveRoutes.LEAVE, timeout=timeout)

    # Files of models

    async def fetch(self, fetch: Fetch, *, job_id: str | None, timeout: float) -> FetchView:
        """Have the hive fetch a file, for a job if `job_id` is given; one that it has is no error."""
        headers = {JOB_HEADER: job_id} if job_id else {}
        return await self._work_links.ask(HiveRoutes.FETCH, fetch, headers=headers, timeout=timeout)

    async def fetch_state(self, fetch_id: str, *, after: int, timeout: float) -> FetchView:
        """Return the state of a fetch as soon as its serial is larger than `after`, or after WAIT_MAX s."""
        values = {"fetch_id": fetch_id, "after": str(after), "wait": str(WAIT_MAX)}
        return await self._work_links.ask(HiveRoutes.FETCH_STATE, headers=values, timeout=WAIT_MAX + timeout)

    async def cancel_fetch(self, fetch_id: str, *, timeout: float) -> FetchView:
        """Have the hive end a fetch, and remove what has arrived of its file."""
        values = {"fetch_id": fetch_id}
        return await self._work_links.ask(HiveRoutes.CANCEL_FETCH, headers=values, timeout=timeout)

    async def remove_file(self, sha256: str, *, timeout: float) -> None:
        """Have the hive remove a file from its store; it is no error if it is not there."""
        await self._work_links.ask(HiveRoutes.REMOVE_FILE, headers={"sha256": sha256}, timeout=timeout)

    # Workers

    async def engines(self, *, timeout: float) -> Engines:
        """Return the hive's engines."""
        return await self._work_links.ask(HiveRoutes.ENGINES, timeout=timeout)

    async def memory(self, *, timeout: float) -> Memory:
        """Return the hive's memory book."""
        return await self._work_links.ask(HiveRoutes.MEMORY, timeout=timeout)

    async def estimate(self, asked: AskEstimate, *, timeout: float) -> Estimate:
        """Return what the engine says that a model needs; a hive before 0.5.0 has no such route."""
        return await self._work_links.ask(HiveRoutes.ESTIMATE, asked, timeout=timeout)

    async def workers(self, *, timeout: float) -> HiveWorkers:
        """Return all workers of the hive."""
        return await self._work_links.ask(HiveRoutes.WORKERS, timeout=timeout)

    async def start_worker(self, worker: StartWorker, *, job_id: str, timeout: float) -> HiveWorker:
        """Have the hive begin a worker's start, for a job; NoMemory if it refuses the claim."""
        headers = {JOB_HEADER: job_id}
        return await self._work_links.ask(HiveRoutes.START_WORKER, worker, headers=headers, timeout=timeout)

    async def worker(self, worker_id: str, *, after: int, timeout: float) -> HiveWorker:
        """Return a worker as soon as its serial is larger than `after`, or after WAIT_MAX seconds."""
        values = {"worker_id": worker_id, "after": str(after), "wait": str(WAIT_MAX)}
        return await self._work_links.ask(HiveRoutes.WORKER, headers=values, timeout=WAIT_MAX + timeout)

    async def stop_worker(self, worker_id: str, *, timeout: float) -> HiveWorker:
        """Have the hive stop a worker, and return it once its memory is free; UnknownWorker if it is gone."""
        values = {"worker_id": worker_id}
        return await self._work_links.ask(HiveRoutes.STOP_WORKER, headers=values, timeout=timeout)

    async def connect(self, worker_id: str, *, timeout: float) -> socket.socket:
        """Return a connection to a worker's engine, which the caller closes.

        `timeout` is in seconds. Raises HiveFailed for a remote hive, and as EngineConnections.to().
        """
        if self._local is None:
            raise HiveFailed("this release of rbee cannot reach a worker on another machine")
        if self._engines is None:
            from rbee.client.handovers import EngineConnections

            self._engines = EngineConnections(self._local, scope=self._scope)
        return await self._engines.to(worker_id, timeout=timeout)

    def close(self) -> None:
        """Close the connections that are its own, which are not those of the links."""
        if self._engines is not None:
            self._engines.close()


class HeartbeatClient:
    """A hive's requests to its local queen."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def is_open(self) -> bool:
        """Would a beat use a connection that is open already?"""
        return self._link.is_open

    async def beat(self, heartbeat: Heartbeat, *, timeout: float | None = None) -> HeartbeatAck:
        """Send a beat and return its ack. Raises as Link.ask()."""
        return await self._link.ask(QueenRoutes.HEARTBEAT, heartbeat, timeout=timeout)
