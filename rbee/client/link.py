"""The daemons' way to each other: one kept connection, and what is asked over it."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from rbee.client.answers import ANSWER_LIMIT, cannot_connect, os_error, read_answer, refusal
from rbee.contracts import (
    JOB_HEADER,
    Devices,
    Heartbeat,
    HeartbeatAck,
    HiveRoutes,
    QueenRoutes,
    Route,
    Sample,
    encode,
)
from rbee.errors import TimedOut, Unreachable


class Link:
    """One kept connection of a daemon to the other; requests go over it one at a time.

    `timeout` in seconds bounds a request from its beginning to the last byte of its answer.
    """

    def __init__(self, path: Path, *, timeout: float) -> None:
        import httpcore

        self._httpcore = httpcore
        self._path = path
        self._timeout = timeout
        self._pool = self._new_pool()

    def _new_pool(self) -> Any:
        # Above any interval between two heartbeats: httpcore would drop it at 5 s otherwise.
        return self._httpcore.AsyncConnectionPool(
            uds=os.fspath(self._path), max_connections=1, max_keepalive_connections=1, keepalive_expiry=7200
        )

    @property
    def is_open(self) -> bool:
        """Is there a connection that a request would go over, without making a new one?"""
        return any(link.is_idle() and not link.has_expired() for link in self._pool.connections)

    async def ask(
        self,
        route: Route,
        body: Any = None,
        *,
        headers: dict[str, str] | None = None,
        timeout: float | None = None,
    ) -> Any:
        """The decoded answer of a route; TimedOut, Unreachable, or what the other side refused with."""
        span = self._timeout if timeout is None else timeout
        try:
            async with asyncio.timeout(span):
                status, content = await self._exchange(route, body, headers or {})
        except TimeoutError as error:
            # A request cut off in its middle leaves a connection that nobody can use.
            await self._discard()
            raise TimedOut(f"{self._path} did not answer within {span:g} s") from error
        except (self._httpcore.NetworkError, self._httpcore.ProtocolError) as error:
            raise cannot_connect(self._path, os_error(error)) from error
        if status >= 400:
            raise refusal(content, status)
        return read_answer(route, content, status)

    async def _exchange(self, route: Route, body: Any, headers: dict[str, str]) -> tuple[int, bytes]:
        lines = {"Host": "localhost", **headers}
        sent = b""
        if body is not None:
            sent = json.dumps(encode(body)).encode()
            lines |= {"Content-Type": "application/json", "Content-Length": str(len(sent))}
        async with self._pool.stream(
            route.method,
            f"http://localhost{route.url()}",
            headers=[(name.encode(), value.encode()) for name, value in lines.items()],
            content=sent,
        ) as response:
            content = b""
            async for part in response.aiter_stream():
                content += part
                if len(content) > ANSWER_LIMIT:
                    raise Unreachable(f"the answer from {self._path} is larger than {ANSWER_LIMIT} bytes")
            return response.status, content

    async def _discard(self) -> None:
        old, self._pool = self._pool, self._new_pool()
        await _close(old)

    async def close(self) -> None:
        await _close(self._pool)


async def _close(pool: Any) -> None:
    await pool.aclose()
    await asyncio.sleep(0)  # a transport closes its socket in the loop's next round


class HiveClient:
    """What the queen asks of a hive, whatever link leads to it.

    `looks` is a link of its own for who looks: over `link` a detection may be under way for long.
    """

    def __init__(self, link: Link, *, looks: Link | None = None) -> None:
        self._link = link
        self._looks = looks or link

    async def devices(self, *, job_id: str | None, timeout: float) -> Devices:
        """Have the hive detect its devices; raises what the hive refused with."""
        headers = {JOB_HEADER: job_id} if job_id else {}
        devices: Devices = await self._link.ask(HiveRoutes.DEVICES, headers=headers, timeout=timeout)
        return devices

    async def sample(self, *, timeout: float) -> Sample:
        """What the hive's machine does right now."""
        sample: Sample = await self._looks.ask(HiveRoutes.SAMPLE, timeout=timeout)
        return sample


class HeartbeatClient:
    """What a hive tells the queen."""

    def __init__(self, link: Link) -> None:
        self._link = link

    @property
    def is_open(self) -> bool:
        return self._link.is_open

    async def beat(self, heartbeat: Heartbeat, *, timeout: float | None = None) -> HeartbeatAck:
        ack: HeartbeatAck = await self._link.ask(QueenRoutes.HEARTBEAT, heartbeat, timeout=timeout)
        return ack
