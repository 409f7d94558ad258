"""Serving an app on sockets that systemd handed over; errors become problem documents.

Only here do our errors turn into HTTP statuses, and only here is SIGTERM heard.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import json
import logging
import os
import re
import signal
import socket
import ssl
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from functools import partial
from typing import Any, BinaryIO, Protocol, get_args

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from rbee.contracts import Route, Shape, decode, encode
from rbee.errors import BadInput, NoSuchMethod, NoSuchRoute, RbeeError, Stopping, TooLarge
from rbee.narration import Event, Journal
from rbee.server.connection import (
    BODY_LIMIT,
    CONNECTIONS,
    DAEMON_IDLE_TIMEOUT,
    HIVE_CONNECTIONS,
    Connection,
    RemoteConnection,
)
from rbee.server.door import Door
from rbee.server.peer import AnyPeer, Peer, RemotePeer
from rbee.server.places import Places
from rbee.systemd import Notifier, failure_in_a_line, watchdog_interval
from rbee.text import printable
from rbee.wire.openapi import openapi

log = logging.getLogger("rbee")

FILE_PART = 64 * 1024
"""Bytes of a file that are read and sent at once."""

GRACE = 1.0
"""Seconds that requests in flight have after SIGTERM."""

ACCEPTED_AT_ONCE = 100
"""Connections that are accepted before the loop sees to those there are."""

BACKLOG = 4096
"""Connections that wait to be accepted, as in the socket units."""

Handler = Callable[[Request], Awaitable[Any]]


Admit = Callable[[Any, Route[Any]], None]
"""Raises NotPermitted for a peer that may not use a route."""


def peer_of(request: Request) -> Peer:
    """The process that sent the request."""
    peer = any_peer_of(request)
    assert isinstance(peer, Peer)
    return peer


def remote_peer_of(request: Request) -> RemotePeer:
    """Who sent the request over TCP."""
    peer = any_peer_of(request)
    assert isinstance(peer, RemotePeer)
    return peer


def any_peer_of(request: Request) -> AnyPeer:
    peer: AnyPeer = request.scope["rbee.peer"]
    return peer


# The app


def build_app(
    title: str,
    version: str,
    handlers: Mapping[Route[Any], Handler],
    *,
    admit: Admit = lambda peer, route: None,
) -> Starlette:
    """An app of the route table's handlers; a handler returns a shape, or a Response of its own.

    The OpenAPI document is made from the same table, so that it cannot drift.
    """
    document = json_response(openapi(title, version, tuple(handlers))).body
    paths: dict[str, dict[str, tuple[Route[Any], Handler]]] = {}
    for route, handler in handlers.items():
        paths.setdefault(route.path, {})[route.method] = (route, handler)

    app = Starlette(
        routes=[StarletteRoute(path, _Endpoint(methods, document, admit)) for path, methods in paths.items()],
        exception_handlers={RbeeError: _refuse, HTTPException: _refuse_http, Exception: _refuse_unforeseen},
    )
    # A path is a path: no redirect, which would be neither our answer nor a problem.
    app.router.redirect_slashes = False
    return app


class _Endpoint:
    """What is at one path. Not a function, which Starlette would answer for with methods of its own."""

    def __init__(
        self,
        methods: Mapping[str, tuple[Route[Any], Handler]],
        document: bytes | memoryview,
        admit: Admit,
    ) -> None:
        self._methods = methods
        self._allowed = list(methods)
        if "GET" in methods and methods["GET"][0].answer is not None:  # a story is all body
            self._allowed.append("HEAD")
        self._document = document
        self._admit = admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._answer(Request(scope, receive))
        except asyncio.CancelledError:
            # serve() cuts off what is still in flight when its grace is over; the client hears of it.
            response = problem_response(Stopping("the daemon is being stopped", hint="Ask again."))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        # HEAD is GET; uvicorn leaves the body out.
        found = self._methods.get("GET" if request.method == "HEAD" else request.method)
        if found is None or request.method not in self._allowed:
            allowed = ", ".join(self._allowed)
            return problem_response(
                NoSuchMethod(
                    f"{request.method} is not a method of {request.scope['path']}", hint=f"It has {allowed}."
                ),
                headers={"Allow": allowed},
            )
        route, handler = found
        self._admit(any_peer_of(request), route)
        if route.answer is dict:
            return Response(self._document, media_type="application/json")
        answer = await handler(request)
        return answer if isinstance(answer, Response) else json_response(answer, route.success)


def json_response(answer: Any, status: int = 200, *, media_type: str = "application/json") -> Response:
    # In ASCII, so that who reads it with curl sees names from outside escaped.
    content = json.dumps(encode(answer), separators=(",", ":")).encode()
    return Response(content, status, media_type=media_type)


def problem_response(error: RbeeError, headers: dict[str, str] | None = None) -> Response:
    response = json_response(error.to_problem(), error.status, media_type="application/problem+json")
    response.headers.update(headers or {})
    return response


async def read_shape(request: Request, kind: type[Shape]) -> Shape:
    """The request's body as a shape; TooLarge beyond BODY_LIMIT, BadInput for what does not fit."""
    try:
        content = await read_body(request)
    except ClientDisconnect as error:
        raise BadInput("the client went before its body had arrived") from error
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the body is not JSON: {error}", hint="Send a JSON object.") from error
    return decode(kind, value)


def read_query(request: Request, route: Route[Any]) -> dict[str, Any]:
    """What the query gives of the route's parameters; BadInput names one that does not fit."""
    given = request.query_params
    return {name: _read_parameter(name, kind, given[name]) for name, kind in route.query if name in given}


def _read_parameter(name: str, kind: Any, text: str) -> Any:
    is_number = get_args(kind)[0] is int and re.fullmatch("-?[0-9]{1,18}", text)
    try:
        return decode(kind, int(text) if is_number else text)
    except BadInput as error:
        raise BadInput(f"{name} {error.message.removeprefix('the body ')}", field=name) from error


async def read_body(request: Request) -> bytes:
    """The request's body as it is; TooLarge beyond BODY_LIMIT."""
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > BODY_LIMIT:
        raise _too_large()
    content = b""
    async for part in request.stream():
        content += part
        if len(content) > BODY_LIMIT:
            raise _too_large()
    return content


def _too_large() -> TooLarge:
    return TooLarge(f"the body is larger than {BODY_LIMIT} bytes", hint=f"Send at most {BODY_LIMIT} bytes.")


async def _refuse(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RbeeError)
    return problem_response(error)


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return problem_response(
            NoSuchRoute(f"there is nothing at {request.scope['path']}", hint="GET /v1/openapi.json")
        )
    return problem_response(BadInput(str(error.detail)))


async def _refuse_unforeseen(request: Request, _error: Exception) -> Response:
    # Starlette raises the error on after this answer, and uvicorn logs its traceback.
    log.error("%s %s failed in a way that nobody foresaw", request.method, printable(request.scope["path"]))
    return problem_response(RbeeError("an error that nobody foresaw", hint="The journal has its traceback."))


# Server-sent events


class Chunks(Protocol):
    """What a stream is made of; aclose() is awaited at its end, even if nothing of it was read."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None: ...


def event_stream(chunks: Chunks) -> Response:
    """A response that sends each chunk as it comes, until the iterator or the client ends."""
    return _EventStream(chunks)


class _EventStream(Response):
    """Plain ASGI: half of what a StreamingResponse costs, and the same from Starlette 0.26 to 1.x."""

    def __init__(self, chunks: Chunks) -> None:
        super().__init__(None, 200, {"Cache-Control": "no-store"}, "text/event-stream")
        del self.headers["content-length"]
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        telling = asyncio.ensure_future(self._tell(send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((telling, leaving), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # serve()'s grace is over, and the client has not taken the end. It gets none then, and
            # uvicorn no error to log.
            scope["rbee.drop"]()
            await asyncio.wait((leaving,))
        finally:
            telling.cancel()
            leaving.cancel()
            broken, _ = await asyncio.gather(telling, leaving, return_exceptions=True)
            await self._chunks.aclose()
        if isinstance(broken, Exception):
            raise broken

    async def _tell(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self._chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def file_answer(file: BinaryIO, media_type: str) -> Response:
    """A response that sends an open file from its beginning, and closes it."""
    return _FileAnswer(file, media_type)


class _FileAnswer(Response):
    def __init__(self, file: BinaryIO, media_type: str) -> None:
        size = os.fstat(file.fileno()).st_size
        super().__init__(None, 200, {"Cache-Control": "no-store", "Content-Length": str(size)}, media_type)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            head = {"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers}
            await send(head)
            is_going_on = True
            while is_going_on:
                part = self._file.read(FILE_PART)
                is_going_on = bool(part)
                await send({"type": "http.response.body", "body": part, "more_body": is_going_on})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


# The server


class _Server(uvicorn.Server):
    """uvicorn without its hands on our signals: 0.32 and later raise SIGTERM again when they end."""

    def __init__(self, config: uvicorn.Config, on_started: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_started = on_started

    def install_signal_handlers(self) -> None:
        """As uvicorn before 0.29 asks."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """As uvicorn from 0.29 on asks."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        for listener in sockets or ():
            # asyncio has one number for how many may wait and how many it accepts at once.
            listener.listen(BACKLOG)
        self._on_started()


@dataclass(frozen=True, slots=True)
class Remote:
    """What is served over TCP: an app of its own, to whoever the TLS context lets in."""

    app: ASGIApp
    sockets: Sequence[socket.socket]
    context: ssl.SSLContext


class _RemoteServer(_Server):
    """The same behind doors: uvicorn would apply TLS to every socket, and let each wait for a minute."""

    def __init__(self, config: uvicorn.Config, remote: Remote) -> None:
        super().__init__(config, lambda: None)
        self._remote = remote
        self._open: list[asyncio.Task[None]] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        places = Places("connections are held", HIVE_CONNECTIONS)
        turned_away: set[Connection] = set()
        # From 0.20 on, uvicorn's protocols also take the state of the app's lifespan.
        knows_state = "app_state" in inspect.signature(HttpToolsProtocol).parameters
        state: dict[str, Any] = {"app_state": {}} if knows_state else {}

        def factory(is_no_stranger: Callable[[], None]) -> asyncio.Protocol:
            return RemoteConnection(
                config=self.config,
                server_state=self.server_state,
                places=places,
                turned_away=turned_away,
                daemons=(),
                is_no_stranger=is_no_stranger,
                **state,
            )

        for listener in self._remote.sockets:
            door = Door(listener, self._remote.context, factory)
            self._open.append(asyncio.get_running_loop().create_task(door.run()))
        self.servers: list[Any] = []
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for door in self._open:
            door.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await super().shutdown(sockets)


async def serve(
    app: ASGIApp,
    sockets: Sequence[socket.socket],
    notifier: Notifier,
    told_to_stop: asyncio.Event,
    *,
    status: Callable[[], str],
    started: Callable[[], None],
    stopping: Callable[[], Awaitable[None]],
    daemons: Collection[int] = (),
    remote: Remote | None = None,
) -> None:
    """Serve until told to stop, then end within GRACE.

    READY=1 is said once the sockets are served, and then `started` is called; `stopping` is
    awaited first thing when told to stop, while the sockets are still served. `daemons` are the
    users whose connections are kept for good, and for whom there is a place when others took all.
    """

    def on_started() -> None:
        if not told_to_stop.is_set():
            notifier.ready(status())
            started()

    places = Places("connections are held", CONNECTIONS, daemons)
    # uvicorn's type wants a class, and all that it does is call it.
    connection: Any = partial(Connection, places=places, turned_away=set(), daemons=daemons)
    servers: list[uvicorn.Server] = []
    if remote is not None:
        servers.append(_RemoteServer(_config(remote.app, RemoteConnection), remote))
    servers.append(_Server(_config(app, connection), on_started))
    serving = asyncio.ensure_future(_serve_all(servers, sockets))
    waiting = asyncio.ensure_future(told_to_stop.wait())
    feeding = asyncio.ensure_future(_feed_watchdog(notifier))
    await asyncio.wait((serving, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not serving.done():
        notifier.stopping("stopping")
        await stopping()
        for server in servers:
            server.should_exit = True
        # Not by force_exit: from Python 3.12 on uvicorn would then wait in Server.wait_closed() for
        # whoever still has a connection. And 0.17 has no timeout_graceful_shutdown.
        await asyncio.wait((serving,), timeout=GRACE)
        serving.cancel()
        cut_off = [task for server in servers for task in server.server_state.tasks]
        for task in cut_off:
            task.cancel()
        await asyncio.gather(*cut_off, return_exceptions=True)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await serving
    finally:
        feeding.cancel()
        notifier.status("stopped")


def _config(app: ASGIApp, connection: Any) -> uvicorn.Config:
    # No more options than uvicorn 0.17 and 0.54 both have.
    return uvicorn.Config(
        app, http=connection, ws="none", lifespan="off", log_config=None, access_log=False,
        proxy_headers=False, server_header=False, timeout_keep_alive=int(DAEMON_IDLE_TIMEOUT),
        backlog=ACCEPTED_AT_ONCE,
    )  # fmt: skip


async def _serve_all(servers: Sequence[uvicorn.Server], sockets: Sequence[socket.socket]) -> None:
    """Until all have ended; the last has the sockets, the others their own."""
    *others, local = servers
    running = [asyncio.ensure_future(server.serve(sockets=[])) for server in others]
    running.append(asyncio.ensure_future(local.serve(sockets=list(sockets))))
    try:
        await asyncio.gather(*running)
    finally:
        for server in running:
            server.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def stop_signal() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set."""
    told_to_stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told_to_stop.set)
    return told_to_stop


async def _feed_watchdog(notifier: Notifier) -> None:
    """Say WATCHDOG=1 from the loop itself, so that a loop that is stuck is seen."""
    interval = watchdog_interval()
    while interval is not None:
        notifier.alive()
        await asyncio.sleep(interval)


# A daemon from its first line to its exit status


def run_daemon(
    identifier: str, failed: Event, run: Callable[[Notifier, Journal], Coroutine[Any, Any, int | None]]
) -> int:
    """Run a daemon's coroutine to its end and return the exit status: its result, 0 for None.

    What ends it early is said in STATUS= before it goes: group rbee may read that, not the journal.
    """
    _log_to_journal()
    notifier = Notifier()
    journal = Journal(identifier)
    try:
        return asyncio.run(run(notifier, journal)) or 0
    except RbeeError as error:
        cause = failure_in_a_line(error)
        notifier.status(cause)
        journal.narrate(failed, f"{identifier} cannot run: {cause}")
        return error.exit_code
    except Exception as error:
        notifier.status(f"an error that nobody foresaw: {error!r}")
        raise


def _log_to_journal() -> None:
    """Send Python's own log to stderr, which systemd takes to the journal, with sd-daemon(3) levels."""
    handler = logging.StreamHandler()
    handler.setFormatter(_SdDaemonFormatter("%(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


class _SdDaemonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = 3 if record.levelno >= logging.ERROR else 4 if record.levelno >= logging.WARNING else 6
        # Each line of a traceback is an entry of its own, and needs its level.
        return "\n".join(f"<{level}>{printable(line)}" for line in super().format(record).splitlines())
