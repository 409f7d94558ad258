"""A gateway of the product's on real sockets, between a played queen and a small engine."""

from __future__ import annotations

import array
import asyncio
import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rbee.config import GatewayConfig
from rbee.errors import RbeeError
from rbee.gateway.gateway import Gateway
from rbee.gateway.listeners import Listeners
from rbee.narration import Event, Narrator
from rbee.scope import SYSTEM, Scope
from rbee.wire.leases import Ask, End, Frame, Granted, Refused, Wait, decode_frame, encode_frame
from tests.integration.house import Told, until
from tests.integration.listening import listen

JOB = "0" * 31 + "1"
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: rbee-lease/1\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


def event(text: str) -> bytes:
    """A delta, as engines send it."""
    return f"data: {json.dumps({'choices': [{'delta': {'content': text}}]})}\n\n".encode()


def chunk(content: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(content), content)


@dataclass
class Request:
    """What the engine got."""

    line: str
    headers: dict[str, str]
    body: bytes


class Engine:
    """Serves on a Unix socket; what it answers is `play`, which a test may replace."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.requests: list[Request] = []
        self.open = 0
        self.play: Callable[[Request, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]] = says

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        server = await asyncio.start_unix_server(self._connected, self.path, limit=2**20)
        try:
            yield
        finally:
            server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                request = await read_request(reader)
                self.requests.append(request)
                await self.play(request, reader, writer)
                await writer.drain()
        finally:
            self.open -= 1
            writer.close()


async def read_request(reader: asyncio.StreamReader) -> Request:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    return Request(first, headers, await reader.readexactly(int(headers.get("content-length", 0))))


async def says(request: Request, _reader: object, writer: asyncio.StreamWriter) -> None:
    """Answer 'I am bee.', as a stream if that is asked for."""
    if json.loads(request.body).get("stream"):
        writer.write(CHUNKED)
        for word in ("I", " am", " bee."):
            writer.write(chunk(event(word)))
            await writer.drain()
        usage = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":3}}\n\n'
        writer.write(chunk(usage) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        return
    content = json.dumps({
        "choices": [{"message": {"content": "I am bee."}}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 3},
    }).encode()  # fmt: skip
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nServer: engine\r\nKeep-Alive: timeout=5\r\n"
        b"Access-Control-Allow-Origin: *\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content)
    )


class LeaseEnd:
    """The queen's end of one lease."""

    def __init__(self, channel: socket.socket, engine: Engine) -> None:
        self.channel = channel
        self.has_ended = False
        """Has the gateway sent an End?"""
        self._engine = engine

    async def send(self, *frames: Frame) -> None:
        await asyncio.get_running_loop().sock_sendall(self.channel, b"".join(map(encode_frame, frames)))

    async def grant(self, *, was_cold: bool = False, job_id: str | None = None) -> None:
        with socket.socket(socket.AF_UNIX) as engine:
            engine.connect(str(self._engine.path))
            rights = array.array("i", [engine.fileno()])
            line = encode_frame(Granted("bee-1", was_cold, job_id))
            self.channel.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])

    async def gone(self) -> None:
        """Wait until the gateway has ended the lease, by an End or with the connection."""
        line = b""
        with contextlib.suppress(OSError):
            while not self.has_ended and (
                part := await asyncio.get_running_loop().sock_recv(self.channel, 4096)
            ):
                line += part
                self.has_ended = line == encode_frame(End())


async def grants(_ask: Ask, lease: LeaseEnd) -> None:
    await lease.grant()


@dataclass
class Queen:
    """Plays the queen: leases as `play` does it, and the models of a key."""

    path: Path
    engine: Engine
    play: Callable[[Ask, LeaseEnd], Awaitable[None]] = grants
    models: tuple[str, ...] = ("bee", "wasp")
    keys: dict[str, tuple[str, ...]] = field(default_factory=dict)
    asks: list[Ask] = field(default_factory=list)
    targets: list[str] = field(default_factory=list)
    confirms: Frame | None = field(default_factory=End)
    """What she sends when the gateway has ended a lease; with None she closes the connection."""
    held: set[LeaseEnd] = field(default_factory=set)
    runs: list[str | None] = field(default_factory=lambda: [None])
    """What names her run, one for each question, and the last from then on."""

    def run(self) -> str | None:
        """Return what names this run; restarted at each question, unless a test has said otherwise."""
        if self.runs != [None]:
            return self.runs.pop(0) if len(self.runs) > 1 else self.runs[0]
        return str(time.monotonic_ns())

    def __post_init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def drop(self) -> None:
        """End all connections."""
        for task in self._tasks:
            task.cancel()

    @asynccontextmanager
    async def serve(self) -> AsyncIterator[None]:
        self.path.unlink(missing_ok=True)
        with listen(self.path) as listener:
            listener.setblocking(False)
            listener.listen(4096)
            accepting = asyncio.ensure_future(self._accept(listener))
            try:
                yield
            finally:
                for task in {accepting, *self._tasks}:
                    task.cancel()
                results = await asyncio.gather(accepting, *self._tasks, return_exceptions=True)
                for result in results:
                    if isinstance(result, Exception):  # not a CancelledError, as of drop()
                        raise result

    async def _accept(self, listener: socket.socket) -> None:
        while True:
            channel, _ = await asyncio.get_running_loop().sock_accept(listener)
            task = asyncio.ensure_future(self._talk(channel))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _talk(self, channel: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with channel:
            while True:
                head = b""
                while b"\r\n\r\n" not in head:
                    part = await loop.sock_recv(channel, 4096)
                    if not part:
                        return
                    head += part
                lines = head.decode().split("\r\n")
                self.targets.append(lines[0])
                if lines[0].startswith("GET /v1/lease "):
                    await self._lease(channel)
                    return
                await loop.sock_sendall(channel, self._open_models(lines))

    async def _lease(self, channel: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(channel, SWITCHED)
        while True:
            line = b""
            while not line.endswith(b"\n"):
                part = await loop.sock_recv(channel, 4096)
                if not part:
                    return
                line += part
            ask = decode_frame(line)
            assert isinstance(ask, Ask)
            self.asks.append(ask)
            lease = LeaseEnd(channel, self.engine)
            self.held.add(lease)
            try:
                with contextlib.suppress(OSError):
                    await self.play(ask, lease)
                await lease.gone()
            finally:
                self.held.discard(lease)
            if not lease.has_ended or self.confirms is None:
                return
            with contextlib.suppress(OSError):
                await lease.send(self.confirms)

    def _open_models(self, lines: list[str]) -> bytes:
        key = next((line.split(": ")[1] for line in lines if line.lower().startswith("rbee-key:")), None)
        if key is not None and key not in self.keys:
            content = json.dumps({"type": "urn:rbee:problem:bad-key", "detail": "the key is not known"})
            return whole(401, content)
        names = self.models if key is None else self.keys[key]
        return whole(200, json.dumps({"models": [{"name": one, "created_at_ms": 5000} for one in names]}))


def whole(status: int, content: str) -> bytes:
    return f"HTTP/1.1 {status} x\r\nContent-Length: {len(content)}\r\n\r\n{content}".encode()


def refusal(error: RbeeError, retry_s: int | None = None) -> Refused:
    return Refused(error.to_problem(), retry_s)


def loading(percent: float) -> Wait:
    return Wait("loading bee", percent, JOB)


class Tape(Narrator):
    def __init__(self) -> None:
        self.lines: list[tuple[str, str, dict[str, str]]] = []

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        self.lines.append((event.name, text, fields))

    def of(self, name: str) -> list[tuple[str, dict[str, str]]]:
        return [(text, fields) for event, text, fields in self.lines if event == name]


@dataclass
class Stage:
    """Everything of one test."""

    queen: Queen
    engine: Engine
    path: Path
    tape: Tape
    told: Told
    stop: asyncio.Event
    server_task: asyncio.Task[None]
    scope: Scope
    gateway: Gateway


@asynccontextmanager
async def stage(
    folder: Path, *, config: GatewayConfig | None = None, listeners: Listeners | None = None
) -> AsyncIterator[Stage]:
    """A running gateway; at the end it is stopped, and nothing is left of any request."""
    scope = SYSTEM._replace(runtime=folder)
    engine = Engine(folder / "engine.sock")
    queen = Queen(scope.queen_socket, engine)
    tape, told, stop = Tape(), Told(), asyncio.Event()
    listener = listen(scope.gateway_socket)
    listener.listen(4096)
    sockets = listeners or Listeners([], [], None)
    sockets = Listeners([listener, *sockets.plain], sockets.encrypted, sockets.context)
    async with engine.serve(), queen.serve():
        settings = config or GatewayConfig(hold=10.0)
        options = {"queen_run": queen.run}
        async with Gateway.open(settings, scope, sockets, told, tape, **options) as gateway:
            server_task = asyncio.ensure_future(gateway.serve(stop, started=lambda: None))
            await told.is_ready.wait()
            try:
                yield Stage(
                    queen, engine, scope.gateway_socket, tape, told, stop, server_task, scope, gateway
                )
            finally:
                stop.set()
                await server_task
        await until(lambda: not engine.open and not queen.held)


class Client:
    """A client's connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> None:
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = [f"{method} {path} HTTP/1.1", "Host: rbee", f"Content-Length: {len(content)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode() + content)
        await self.writer.drain()

    async def head(self) -> tuple[int, dict[str, str]]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        return int(first.split()[1]), headers

    async def chunk(self) -> bytes:
        """The next chunk; b"" at the proper end."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        content = await self.reader.readexactly(size)
        assert await self.reader.readexactly(2) == b"\r\n"
        return content

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        status, headers = await self.head()
        if "content-length" in headers:
            return status, headers, await self.reader.readexactly(int(headers["content-length"]))
        content = b""
        while part := await self.chunk():
            content += part
        return status, headers, content

    def close(self) -> None:
        self.writer.close()


@asynccontextmanager
async def client_of(place: Stage | tuple[str, int], **options: Any) -> AsyncIterator[Client]:
    if isinstance(place, Stage):
        reader, writer = await asyncio.open_unix_connection(place.path, **options)
    else:
        reader, writer = await asyncio.open_connection(*place, **options)
    client = Client(reader, writer)
    try:
        yield client
    finally:
        client.close()


ASKED = {"model": "bee", "messages": [{"role": "user", "content": "who are you?"}]}
STREAMED = {**ASKED, "stream": True}
CHAT = "/v1/chat/completions"


async def ask(
    place: Stage | tuple[str, int],
    body: Any = None,
    *,
    path: str = CHAT,
    method: str = "POST",
    **headers: str,
) -> tuple[int, dict[str, str], bytes]:
    """One request on a connection of its own, and its whole answer."""
    async with client_of(place) as client:
        await client.send(method, path, ASKED if body is None and method == "POST" else body, **headers)
        return await client.answer()


def error_in(content: bytes) -> dict[str, Any]:
    error: dict[str, Any] = json.loads(content)["error"]
    assert set(error) - {"detail", "hint"} == {"message", "type", "code", "param"}
    return error


def run(folder: Path, act: Callable[[Stage], Awaitable[None]], **options: Any) -> None:
    """Act on a stage, within 20 s."""

    async def acting() -> None:
        async with asyncio.timeout(20), stage(folder, **options) as it:
            await act(it)

    asyncio.run(acting())
