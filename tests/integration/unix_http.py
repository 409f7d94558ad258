"""An app on a real Unix socket, served by the product; raw bytes for what no client of ours would send."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from starlette.types import ASGIApp

from rbee.server.quick import Quick
from rbee.server.uvicorn import Remote, serve
from rbee.systemd.daemon import Notifier
from rbee.wire.routes import Route
from tests.integration.listening import listen

TIMEOUT = 5.0


async def nothing() -> None:
    pass


Stop = Callable[[], Awaitable[None]]


@asynccontextmanager
async def running(
    app: ASGIApp,
    listeners: list[socket.socket],
    notifier: Notifier,
    *,
    stopping: Stop = nothing,
    remote: Remote | None = None,
    quick: Mapping[Route[Any], Quick] = MappingProxyType({}),
    upgrades: Collection[str] = (),
) -> AsyncIterator[Stop]:
    """The product's server, once it has started; what is yielded stops it and waits until it has ended."""
    told_to_stop, started = asyncio.Event(), asyncio.Event()
    serving = asyncio.ensure_future(
        serve(
            app,
            listeners,
            notifier,
            told_to_stop,
            status=lambda: "all is well",
            started=started.set,
            stopping=stopping,
            remote=remote,
            quick=quick,
            upgrades=upgrades,
        )
    )

    async def stop() -> None:
        told_to_stop.set()
        await asyncio.wait_for(asyncio.shield(serving), TIMEOUT)

    waiting = asyncio.ensure_future(started.wait())
    try:
        await asyncio.wait((waiting, serving), timeout=TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        assert started.is_set()
        try:
            yield stop
        finally:
            await stop()
    finally:
        waiting.cancel()
        serving.cancel()
        await asyncio.gather(serving, waiting, return_exceptions=True)


@asynccontextmanager
async def served(
    app: ASGIApp,
    path: Path,
    notifier: Notifier,
    *,
    stopping: Stop = nothing,
    quick: Mapping[Route[Any], Quick] = MappingProxyType({}),
    upgrades: Collection[str] = (),
) -> AsyncIterator[Stop]:
    """As running(), on `path`."""
    with closing(listen(path)) as listener:
        async with running(
            app, [listener], notifier, stopping=stopping, quick=quick, upgrades=upgrades
        ) as stop:
            yield stop


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


async def raw(path: Path, request: bytes) -> Answer:
    """What the server answers to these bytes, up to the end of one answer."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    try:
        writer.write(request)
        return await asyncio.wait_for(read_answer(reader), TIMEOUT)
    finally:
        writer.close()
        await writer.wait_closed()


async def read_answer(reader: asyncio.StreamReader) -> Answer:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    content = await reader.readexactly(int(headers["content-length"])) if "content-length" in headers else b""
    return Answer(int(first.split()[1]), headers, content)


def request(method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def post(path: str, body: Any, **headers: str) -> bytes:
    return request("POST", path, json.dumps(body).encode(), **headers)


@asynccontextmanager
async def playing(
    path: Path, play: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
) -> AsyncIterator[None]:
    """A server of the other side's that does just what `play` does with each connection."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await play(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_unix_server(connected, str(path))
    try:
        yield
    finally:
        server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            if task.get_coro().__qualname__.startswith("playing."):  # type: ignore[union-attr]
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
