"""The keeper's client for the queen: one request for each connection, blocking, quick to import."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode

from rbee.client.answers import ANSWER_LIMIT, cannot_connect, read_answer, refusal
from rbee.errors import Disconnected, TimedOut, Unreachable
from rbee.files import reason
from rbee.scope import QUEEN_PROGRAM, SYSTEM, Scope
from rbee.wire import sse
from rbee.wire.codec import encode
from rbee.wire.routes import EVENT_HEADER, Answer, QueenRoutes, Route

if TYPE_CHECKING:
    from rbee.wire.jobs import JobStarted

SILENCE = 30.0
"""Seconds without data after which a stream counts as broken: three times sse.KEEP_ALIVE."""


class StoryEvent(NamedTuple):
    """One server-sent event: `kind` is 'job', 'line', 'done' or 'error'."""

    id: int
    kind: str
    data: dict[str, Any]


class FeedBlock(NamedTuple):
    """One block of the feed: `kind` is 'narrated' or 'gap', or '' for one with only an id."""

    id: str
    kind: str
    data: dict[str, Any]


def _for_ever(most: float) -> float:
    return most


class QueenClient:
    """Sends requests to the queen's socket at `path`. `timeout` in seconds bounds each wait.

    `left` shortens a timeout to what is left of a deadline, and raises TimedOut once that has passed.
    """

    def __init__(
        self,
        path: Path,
        *,
        timeout: float = 10.0,
        left: Callable[[float], float] = _for_ever,
        scope: Scope = SYSTEM,
    ) -> None:
        self._path = path
        self._scope = scope
        self._timeout = timeout
        self._left = left

    def within(self, timeout: float) -> QueenClient:
        """Return the same client with another timeout."""
        return QueenClient(self._path, timeout=timeout, left=self._left, scope=self._scope)

    def ask(self, route: Route[Answer], body: Any = None, **values: str) -> Answer:
        """Send a request and return the decoded answer; `values` are for the route's path and query.

        Raises the queen's refusal, TimedOut, NotRunning, NotPermitted or Unreachable.
        """
        with closing(self._connect()) as channel:
            answer = _Answer(channel, self._timeout, self._left, self._scope)
            _send(channel, route, body, "application/json", values)
            content = answer.whole()
        if answer.status >= 400:
            raise refusal(content, answer.status)
        return read_answer(route, content, answer.status)

    def tell_story(
        self, route: Route[JobStarted] | Route[None], body: Any = None, **values: str
    ) -> Iterator[StoryEvent]:
        """Yield the events of the story that a request begins or resumes, until 'done' or 'error'.

        Raises as ask(), and Disconnected if the stream ends before that.
        """
        with closing(self._connect()) as channel:
            answer = _Answer(channel, self._timeout, self._left, self._scope)
            _send(channel, route, body, "text/event-stream", values)
            answer.await_status()
            if answer.status >= 400:
                raise refusal(answer.whole(), answer.status)
            answer.timeout = SILENCE
            yield from _events(answer)

    def fetch(self, route: Route[bytes], *, accept: str | None = None) -> Iterator[bytes]:
        """Yield the parts of the file that a route answers with. Raises as ask()."""
        with closing(self._connect()) as channel:
            answer = _Answer(channel, SILENCE, self._left, self._scope)
            _send(channel, route, None, accept or route.media_type, {})
            answer.await_status()
            if answer.status >= 400:
                raise refusal(answer.whole(), answer.status)
            yield from answer.parts()

    def watch(self, *, after: str | None = None, since_ms: int | None = None) -> FeedStream:
        """Open the feed after the event id `after`, at `since_ms` (ms since the epoch), or from now on.

        The caller closes it. Raises as ask().
        """
        channel = self._connect()
        try:
            answer = _Answer(channel, self._timeout, self._left, self._scope)
            asked = {} if since_ms is None else {"since_ms": str(since_ms)}
            headers = {} if after is None else {EVENT_HEADER: after}
            _send(channel, QueenRoutes.FEED, None, "text/event-stream", asked, headers)
            answer.await_status()
            if answer.status >= 400:
                raise refusal(answer.whole(), answer.status)
        except BaseException:
            channel.close()
            raise
        return FeedStream(channel, answer)

    def _connect(self) -> socket.socket:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        channel.settimeout(self._left(self._timeout))
        try:
            channel.connect(os.fspath(self._path))
        except OSError as error:
            channel.close()
            raise cannot_connect(self._path, error, self._scope) from error
        return channel


class FeedStream:
    """The feed: call receive() when the socket is readable, then take(). Nothing here waits."""

    def __init__(self, channel: socket.socket, answer: _Answer) -> None:
        self._channel = channel
        self._answer = answer
        self._parser = sse.Parser(ANSWER_LIMIT)

    def fileno(self) -> int:
        """Return the socket's descriptor, for select()."""
        return self._channel.fileno()

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def receive(self) -> None:
        """Read what has arrived. Raises Disconnected if the connection broke."""
        self._answer.receive()

    def take(self) -> list[FeedBlock]:
        """Return the blocks that have arrived completely."""
        events = self._parser.feed(b"".join(self._answer.take()))
        return [
            FeedBlock(event.id, event.kind or "", _data(event.data or "{}"))
            for event in events
            if event.id is not None
        ]

    @property
    def is_ended(self) -> bool:
        """Has the queen ended the stream, as it does when it stops?"""
        return self._answer.is_complete


class _Answer:
    """An HTTP answer that is read from a socket; httptools parses it and calls the on_ methods."""

    def __init__(
        self, channel: socket.socket, timeout: float, left: Callable[[float], float], scope: Scope
    ) -> None:
        import httptools

        self._scope = scope
        self.status = 0
        self.timeout = timeout
        self._channel = channel
        self._left = left
        self._parser = httptools.HttpResponseParser(self)
        # An upgrade to another protocol is not an answer either, and a separate exception.
        self._broken = (httptools.HttpParserError, httptools.HttpParserUpgrade)
        self._parts: list[bytes] = []
        self.is_complete = False

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()

    def on_body(self, part: bytes) -> None:
        self._parts.append(part)

    def on_message_complete(self) -> None:
        self.is_complete = True

    def await_status(self) -> None:
        while not self.status:
            self.receive()

    def take(self) -> list[bytes]:
        """Return what has arrived of the body since the last call."""
        parts, self._parts = self._parts, []
        return parts

    def parts(self) -> Iterator[bytes]:
        """Yield the body as it comes. Raises Disconnected if it ends too early."""
        while True:
            yield from self.take()
            if self.is_complete:
                return
            self.receive()

    def whole(self) -> bytes:
        content = b""
        for part in self.parts():
            content += part
            if len(content) > ANSWER_LIMIT:
                raise Unreachable(f"the queen's answer is larger than {ANSWER_LIMIT} bytes")
        return content

    @property
    def why(self) -> str:
        """The hint for a queen that disconnected: the commands that show why."""
        status = self._scope.systemctl(f"status {QUEEN_PROGRAM}")
        return f"{status}; {self._scope.journalctl(f'-u {QUEEN_PROGRAM} -e')}"

    def receive(self) -> None:
        try:
            self._channel.settimeout(self._left(self.timeout))
            data = self._channel.recv(65536)
            if not data:
                raise Disconnected("the queen disconnected in the middle of its answer", hint=self.why)
            self._parser.feed_data(data)
        except TimeoutError as error:
            self._left(self.timeout)
            raise TimedOut(
                f"the queen was silent for {self.timeout:g} s",
                hint=self._scope.systemctl(f"status {QUEEN_PROGRAM}"),
            ) from error
        except OSError as error:
            raise Disconnected(
                f"the connection to the queen broke ({reason(error)})", hint=self.why
            ) from error
        except self._broken as error:
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None  # it came in a callback of the parser
            raise Unreachable(f"the queen's answer is not HTTP ({error})", hint=self.why) from error


def _send(
    channel: socket.socket,
    route: Route[Any],
    body: Any,
    accept: str,
    values: Mapping[str, str],
    headers: Mapping[str, str] | None = None,
) -> None:
    """Write a request. Errors are ignored: the answer may be a refusal before all of it is written."""
    content = b"" if body is None else json.dumps(encode(body)).encode()
    path = route.url(**{name: quote(value, safe="") for name, value in values.items()})
    query = urlencode({name: values[name] for name, _ in route.query if name in values})
    head = (
        f"{route.method} {path}{'?' if query else ''}{query} HTTP/1.1",
        "Host: localhost",
        "Connection: close",
        f"Accept: {accept}",
        "Content-Type: application/json",
        f"Content-Length: {len(content)}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    )
    with suppress(OSError):
        channel.sendall("\r\n".join((*head, "", "")).encode() + content)


def _events(answer: _Answer) -> Iterator[StoryEvent]:
    parser = sse.Parser(ANSWER_LIMIT)
    for part in answer.parts():
        for event in parser.feed(part):
            if event.data is None:
                continue
            yield _story_event(event.id, event.kind, event.data)
            if event.kind in ("done", "error"):
                return
    raise Disconnected("the queen disconnected in the middle of the story", hint=answer.why)


def _story_event(at: str | None, kind: str | None, data: str) -> StoryEvent:
    try:
        number = int("0" if at is None else at)
    except ValueError as error:
        raise Unreachable(f"an event of the job's story is not valid: {error}") from error
    return StoryEvent(number, kind or "message", _data(data))


def _data(text: str) -> dict[str, Any]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unreachable(f"an event of the stream is not valid: {error}") from error
    if not isinstance(data, dict):
        raise Unreachable("an event of the stream is not valid: its data is not a JSON object")
    return data
