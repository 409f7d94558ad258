"""Asking the queen and the hive, over their Unix sockets; problems come back as our errors.

Two speeds. QueenClient is what the keeper uses once and throws away: http.client, because a
command line is judged by its start. The daemons keep a connection for as long as they live:
httpcore, the transport under httpx (whose import costs 240 ms on Debian 12, httpcore's 20).
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbee.contracts import (
    JOB_HEADER,
    Devices,
    Heartbeat,
    HeartbeatAck,
    HiveRoutes,
    QueenRoutes,
    Route,
    decode,
    encode,
)
from rbee.errors import (
    BadInput,
    HiveFailed,
    NotPermitted,
    NotRunning,
    RbeeError,
    TimedOut,
    Unreachable,
    from_problem,
)

if TYPE_CHECKING:
    import http.client

ANSWER_LIMIT = 4 * 1024 * 1024
"""Bytes of an answer, or of one line of a story, that are read at the most."""

SILENCE = 30.0
"""Seconds without a byte after which an open story counts as broken; the queen sends one every 10."""


@dataclass(frozen=True, slots=True)
class StoryEvent:
    """One server-sent event: `kind` is 'job', 'line', 'done' or 'error'."""

    id: int
    kind: str
    data: dict[str, Any]


class QueenClient:
    """One request a connection, blocking, for the keeper. `timeout` in seconds bounds each wait."""

    def __init__(self, path: Path, *, timeout: float = 10.0) -> None:
        self._path = path
        self._timeout = timeout

    def ask(self, route: Route, body: Any = None, **values: str) -> Any:
        """The decoded answer of a route."""
        with closing(self._open()) as connection:
            response = self._send(connection, route, body, {}, values)
            answer = _parse(self._read(response), response.status)
            return answer if route.answer is dict else decode(_answer(route), answer)

    def tell_story(self, route: Route, body: Any = None, **values: str) -> Iterator[StoryEvent]:
        """The events of the story that a request begins or resumes, until 'done' or 'error'.

        A stream that just ends raises Unreachable: what ends well says so.
        """
        with closing(self._open()) as connection:
            response = self._send(connection, route, body, {"Accept": "text/event-stream"}, values)
            if connection.sock is not None:
                connection.sock.settimeout(SILENCE)
            yield from self._events(response)

    def _open(self) -> http.client.HTTPConnection:
        import http.client

        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        channel.settimeout(self._timeout)
        try:
            channel.connect(os.fspath(self._path))
        except OSError as error:
            channel.close()
            raise _cannot_connect(self._path, error) from error
        connection = http.client.HTTPConnection("localhost", timeout=self._timeout)
        connection.sock = channel
        return connection

    def _send(
        self,
        connection: http.client.HTTPConnection,
        route: Route,
        body: Any,
        headers: dict[str, str],
        values: dict[str, str],
    ) -> http.client.HTTPResponse:
        import http.client

        content = None if body is None else json.dumps(encode(body)).encode()
        if content is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.request(route.method, route.url(**values), content, headers)
            response = connection.getresponse()
        except TimeoutError as error:
            raise TimedOut(
                f"the queen did not answer within {self._timeout:g} s", hint="systemctl status queen-rbee"
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise _broken(error) from error
        if response.status >= 400:
            raise _refusal(self._read(response), response.status)
        return response

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        import http.client

        try:
            content = response.read(ANSWER_LIMIT + 1)
        except (OSError, http.client.HTTPException) as error:
            raise _broken(error) from error
        if len(content) > ANSWER_LIMIT:
            raise Unreachable(f"the queen's answer is larger than {ANSWER_LIMIT} bytes")
        return content

    def _events(self, response: http.client.HTTPResponse) -> Iterator[StoryEvent]:
        import http.client

        fields: dict[str, str] = {}
        while True:
            try:
                line = response.readline(ANSWER_LIMIT)
            except TimeoutError as error:
                raise TimedOut(
                    f"the queen was silent for {SILENCE:g} s", hint="systemctl status queen-rbee"
                ) from error
            except (OSError, http.client.HTTPException) as error:
                raise _broken(error) from error
            if not line.endswith(b"\n"):
                raise Unreachable(
                    "the queen ended the story before its end", hint="sudo journalctl -u queen-rbee -e"
                )
            name, _, value = line.rstrip(b"\r\n").decode(errors="replace").partition(":")
            if name:
                fields[name] = value.removeprefix(" ")
            elif "data" in fields and not value:
                event = StoryEvent(
                    int(fields.get("id", "0")), fields.get("event", "message"), json.loads(fields["data"])
                )
                yield event
                if event.kind in ("done", "error"):
                    return
                fields = {}


class Link:
    """One kept connection of a daemon to the other; requests go over it one at a time.

    `timeout` bounds each phase of a request (connecting, sending, each wait for bytes).
    """

    def __init__(self, path: Path, *, timeout: float) -> None:
        import httpcore

        self._httpcore = httpcore
        self._path = path
        self._timeout = timeout
        # Above any interval between two heartbeats: httpcore would drop it at 5 s otherwise.
        self._pool = httpcore.AsyncConnectionPool(
            uds=os.fspath(path),
            max_connections=1,
            max_keepalive_connections=1,
            keepalive_expiry=7200,
            retries=0,
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
        lines = {"Host": "localhost", **(headers or {})}
        content = b""
        if body is not None:
            content = json.dumps(encode(body)).encode()
            lines |= {"Content-Type": "application/json", "Content-Length": str(len(content))}
        try:
            async with self._pool.stream(
                route.method,
                f"http://localhost{route.url()}",
                headers=[(name.encode(), value.encode()) for name, value in lines.items()],
                content=content,
                extensions={"timeout": {"connect": span, "read": span, "write": span, "pool": span}},
            ) as response:
                status = response.status
                answer = await self._read(response)
        except self._httpcore.TimeoutException as error:
            raise TimedOut(f"{self._path} did not answer within {span:g} s") from error
        except (self._httpcore.NetworkError, self._httpcore.ProtocolError) as error:
            raise _cannot_connect(self._path, _os_error(error)) from error
        if status >= 400:
            raise _refusal(answer, status)
        return decode(_answer(route), _parse(answer, status))

    async def _read(self, response: Any) -> bytes:
        content = b""
        async for part in response.aiter_stream():
            content += part
            if len(content) > ANSWER_LIMIT:
                raise Unreachable(f"the answer from {self._path} is larger than {ANSWER_LIMIT} bytes")
        return content

    async def close(self) -> None:
        await self._pool.aclose()


class HiveClient:
    """What the queen asks of a hive, whatever link leads to it."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def devices(self, *, job_id: str | None, timeout: float) -> Devices:
        """Have the hive detect its devices; HiveFailed where it refuses."""
        headers = {JOB_HEADER: job_id} if job_id else {}
        try:
            devices: Devices = await self._link.ask(HiveRoutes.DEVICES, headers=headers, timeout=timeout)
        except BadInput as error:
            raise HiveFailed(f"the hive's devices are not as agreed: {error.message}") from error
        return devices


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


def _answer(route: Route) -> type[Any]:
    assert route.answer is not None, f"{route.name} answers with a story"
    return route.answer


def _parse(content: bytes, status: int) -> Any:
    try:
        return json.loads(content)
    except ValueError as error:
        raise Unreachable(f"the answer (status {status}) is not JSON") from error


def _refusal(content: bytes, status: int) -> RbeeError:
    problem = _parse(content, status)
    if not isinstance(problem, dict):
        return Unreachable(f"the answer (status {status}) is not a problem document")
    return from_problem(problem)


def _broken(error: Exception) -> Unreachable:
    return Unreachable(f"the connection to the queen broke ({error})", hint="systemctl status queen-rbee")


def _os_error(error: BaseException | None) -> Exception:
    """The operating system's own error below a library's."""
    root = error
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error
        error = error.__cause__ or error.__context__
    assert isinstance(root, Exception)
    return root


def _cannot_connect(path: Path, error: Exception) -> RbeeError:
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.EACCES, errno.EPERM):
        return NotPermitted(f"{path} is not open to you")
    if code in (errno.ENOENT, errno.ECONNREFUSED):
        return NotRunning(
            f"nobody listens on {path}", hint="systemctl status queen-rbee.socket rbee-hive.socket"
        )
    if isinstance(error, TimeoutError):
        return TimedOut(f"{path} did not take the connection in time")
    return Unreachable(f"{path} does not answer ({error or type(error).__name__})")
