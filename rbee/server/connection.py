"""One client's connection: its peer, and limits on the size and the time of requests and answers.

uvicorn has none of these limits. Its parser keeps whatever a client sends until a header ends, and it waits
without end for the rest of a request, and for a client to read an answer.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import Any, Literal

import httptools
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from rbee.errors import BadInput, HeadTooLarge, RbeeError, TooLarge, TooMany, TooSlow
from rbee.server.limits import Bound, Limits
from rbee.server.peer import AnyPeer, peer_at
from rbee.server.responses import date_headers, push
from rbee.server.unchunked import UnchunkedSend

HEAD_LIMIT = 32 * 1024
"""Bytes of a request's head (request line and headers); more is refused with 431."""

HEAD_TIMEOUT = 10.0
"""Seconds from the connection, or from a further request's first byte, to the end of its head."""

BODY_LIMIT = 256 * 1024
"""Bytes of a request's body; more is refused with 413 before it is read."""

BODY_TIMEOUT = 10.0
"""Seconds from the end of a request's head to that of its body."""

FRAMING_LIMIT = 8 * BODY_LIMIT
"""Bytes around a chunked body: the sizes of its chunks, and trailers."""

PIPELINE_LIMIT = 16
"""Requests of one connection that wait for the answer to an earlier one."""

SEND_TIMEOUT = 30.0
"""Seconds within which a client must take what is sent to it."""

LINGER = 1.0
"""Seconds for which a refused client may continue to send, as it may read the answer only after that."""

IDLE_TIMEOUT = 75.0
"""Seconds that a connection is kept between two requests."""

DAEMON_IDLE_TIMEOUT = 7500.0
"""The same for a daemon's, which stays open: longer than rbee.client.link keeps its end."""

CONNECTIONS = Bound(total=2048, kept=256, a_user=1024, a_process=256, a_daemon=1280)
"""`a_daemon` is for the gateway: one for each of its requests, at most 1024, and a reserve."""

HIVE_CONNECTIONS = Bound(total=32_768, kept=0, a_user=24, a_process=24)
"""For peers over TCP with a credential: the control connection, those for the queen's requests
(rbee.uplink.accept.CARRIERS_MAX), and what a cut link has left behind."""

TURNED_AWAY_MAX = 256
"""Connections over the limit that LINGER; more are closed right after the answer."""

Awaited = Literal["head", "body", "request"]


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with limits. ASGI does not have the peer: it is put into the scope of each request.

    Methods without a docstring are those of HttpToolsProtocol.
    """

    WAITING_BYTES = 0
    """Bytes waiting to be sent above which SEND_TIMEOUT counts."""

    BODY_SECONDS: float | None = None
    """Replaces BODY_TIMEOUT in a subclass that sets it."""

    answer_to: Callable[[RbeeError], bytes] = staticmethod(lambda error: _problem(error))
    """Returns the whole answer to a request that no app gets."""

    def __init__(
        self,
        *arguments: Any,
        limits: Limits,
        turned_away: set[Connection],
        daemons: Collection[int],
        **options: Any,
    ) -> None:
        """All connections share `limits`, and `turned_away`, the connections over the limit."""
        super().__init__(*arguments, **options)
        self._limits = limits
        self._turned_away = turned_away
        self._daemons = daemons
        self._peer: AnyPeer | None = None
        """The peer while it has a place in the limits."""
        self._idle_timeout = IDLE_TIMEOUT
        self._awaited: Awaited = "head"
        self._number = 0
        """The number of the request that is being received."""
        self._size = 0
        """Bytes of a head, or around a body, that came after the first piece of it."""
        self._is_refused = False
        self._answered: Any = None
        """uvicorn's cycle of the request that is being answered; others may wait behind it."""
        self._patience: asyncio.TimerHandle | None = None
        self._stalled: asyncio.TimerHandle | None = None
        self._idle_since: float | None = None
        """The loop's time at which the wait for the next request began, while _patience is for that wait."""

    # Start and end

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        # With this limit pause_writing() is called as soon as data waits, resume_writing() once none does.
        transport.set_write_buffer_limits(high=self.WAITING_BYTES)
        try:
            peer = self._find_peer()
        except OSError:  # disconnected already
            transport.abort()
            return
        self.app: ASGIApp = _with_peer(self.app, peer, transport, self.flow)
        try:
            has_place = self._take_place(peer)
        except TooMany as error:
            if len(self._turned_away) < TURNED_AWAY_MAX:
                self._turned_away.add(self)
                self._refuse(error)
            else:
                transport.write(self.answer_to(error))
                transport.close()
        else:
            self._peer = peer if has_place else None
            self._be_patient()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # Not all versions of uvicorn do this: the timer would keep the connection in memory until it
        # fires, and the parser, which refers back to it, until the next garbage collection.
        self._unset_keepalive_if_required()
        self.parser = None  # type: ignore[assignment]  # as its newer versions do
        self.pipeline.clear()
        answered, self._answered = self._answered, None
        if answered is not None:
            # uvicorn notifies the request that came last, which may not be the one that is answered.
            answered.disconnected = True
            answered.message_event.set()
        _cancel(self._patience)
        _cancel(self._stalled)
        self._turned_away.discard(self)
        peer, self._peer = self._peer, None
        if peer is not None:
            self._limits.give_back(peer)

    def _find_peer(self) -> AnyPeer:
        return peer_at(self.transport.get_extra_info("socket"))

    def _take_place(self, peer: AnyPeer) -> bool:
        """Take a place in the limits, or raise TooMany; return False if the peer needs none."""
        if peer.owner[0] in self._daemons:
            self._idle_timeout = DAEMON_IDLE_TIMEOUT
        self._limits.take(peer)
        return True

    # Requests

    def data_received(self, data: bytes) -> None:
        self._unset_keepalive_if_required()
        if self._is_refused:
            return
        before = self._number, self._awaited
        error = _error_of(self.parser.feed_data, data)
        if error is None and before == (self._number, self._awaited):
            error = _error_of(self._grow, len(data))
        elif error is None:
            self._size = 0
            self._be_patient()
        # Not within an `except`: Python would put its error in place of the one of a callback.
        if error is not None and not self._took_upgrade(error, data):
            self._refuse(error if isinstance(error, RbeeError) else BadInput("the request is not HTTP/1.1"))

    def _took_upgrade(self, _error: Exception, _data: bytes) -> bool:
        """Take the data if this parser error means that a request in it asks to upgrade; return whether."""
        return False

    def _check_upgrade(self) -> None:
        raise BadInput("there is no protocol to upgrade to", hint="Leave out the header Upgrade.")

    def _grow(self, count: int) -> None:
        """Count data that ended neither head nor body; the parser keeps it without any callback."""
        self._size += count
        if self._awaited == "head" and self._size > HEAD_LIMIT:
            raise _head_too_large()
        if self._awaited == "body" and self._size > FRAMING_LIMIT:
            raise TooLarge(f"the body's chunk sizes and trailers are larger than {FRAMING_LIMIT} bytes")

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= PIPELINE_LIMIT:
            raise TooMany(f"{PIPELINE_LIMIT} requests are waiting already", hint="Read the answers first.")
        super().on_message_begin()
        if self._awaited == "request":
            self._number += 1
        self._awaited = "head"

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._awaited == "head":  # not a trailer of a chunked body: uvicorn would keep it
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        check_head(self.url, self.headers)
        self._awaited = "body"
        self.server_state.default_headers = date_headers()
        parser = self.parser
        if parser.should_upgrade():
            self._check_upgrade()
            # uvicorn 0.17 would not pass the request to the app.
            self.parser = _NoUpgrade(parser)  # type: ignore[assignment]  # has all that uvicorn uses
        super().on_headers_complete()
        self.parser = parser
        if self.scope["http_version"] < "1.1":
            self.cycle.send = UnchunkedSend(self.cycle)  # type: ignore[method-assign,assignment]
        if not self.pipeline:
            self._answered = self.cycle

    def on_body(self, body: bytes) -> None:
        # read_body() limits a body that is read; one that is not is discarded by uvicorn, up to BODY_TIMEOUT.
        self._size -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._awaited = "request"

    # Answers

    def on_response_complete(self) -> None:
        if self.pipeline:
            self._answered = self.pipeline[-1][0]  # the next one
        super().on_response_complete()
        if self._awaited == "request":
            self._be_patient()

    def pause_writing(self) -> None:
        super().pause_writing()
        # Not close(), which would wait until the rest is taken.
        self._stalled = self.loop.call_later(SEND_TIMEOUT, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        _cancel(self._stalled)

    # Timeouts

    def _be_patient(self) -> None:
        """Start the timeout for what is awaited now."""
        is_answered = self.cycle is None or self.cycle.response_complete
        is_idle = self._awaited == "request" and not self.pipeline and is_answered
        was_idle, self._idle_since = self._idle_since, self.loop.time() if is_idle else None
        if is_idle and was_idle is not None:
            return  # _end_if_idle() waits on: a timer for each heartbeat would cost as much as its answer
        _cancel(self._patience)
        if self.transport.is_closing():
            return
        if self._awaited == "head":
            self._patience = self.loop.call_later(HEAD_TIMEOUT, self._refuse, _too_slow("head", HEAD_TIMEOUT))
        elif self._awaited == "body":
            seconds = self.BODY_SECONDS or BODY_TIMEOUT
            self._patience = self.loop.call_later(seconds, self._refuse, _too_slow("body", seconds))
        elif is_idle:
            self._patience = self.loop.call_later(self._idle_timeout, _end_if_idle, self)

    def _refuse(self, error: RbeeError) -> None:
        """End the connection; the problem is sent unless it would be inside another answer."""
        if self.transport.is_closing() or self._is_refused:
            return
        if not self._may_answer():
            self.transport.close()
            return
        self.transport.write(self.answer_to(error))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._is_refused = True
        if self.cycle is not None:
            # To the handler of the request, the client has disconnected.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self.cycle.waiting_for_100_continue = False  # or uvicorn sends it after the end
        _cancel(self._patience)
        self._patience = self.loop.call_later(LINGER, self.transport.abort)

    def _may_answer(self) -> bool:
        """Would the client take what is sent now for the answer to the request being received?"""
        if self.pipeline:
            return False
        if self.cycle is None:
            return True
        if self.cycle.response_complete:
            return self._awaited != "body"  # answered before its body has come
        return not self.cycle.response_started


class _NoUpgrade:
    """A parser that reports no upgrade in the request."""

    def __init__(self, parser: httptools.HttpRequestParser) -> None:
        self._parser = parser

    def should_upgrade(self) -> bool:
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._parser, name)


def _error_of(call: Callable[[Any], None], argument: Any) -> Exception | None:
    """Make the call; return its error, or the one of a callback that the parser has replaced by its own."""
    try:
        call(argument)
    except RbeeError as error:
        return error
    except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
        ours = error.__context__
        return ours if isinstance(ours, RbeeError) else error
    return None


def _with_peer(app: ASGIApp, peer: AnyPeer, transport: asyncio.Transport, flow: FlowControl) -> ASGIApp:
    async def app_with_peer(scope: Scope, receive: Receive, send: Send) -> None:
        scope["rbee.peer"] = peer
        scope["rbee.drop"] = transport.abort
        scope["rbee.close"] = transport.close
        scope["rbee.push"] = partial(push, transport, flow)
        await app(scope, receive, send)

    return app_with_peer


def _problem(error: RbeeError) -> bytes:
    return whole_answer(error.status, json.dumps(error.to_problem()).encode(), "application/problem+json")


def whole_answer(status: int, content: bytes, media_type: str) -> bytes:
    """Return an answer, its head and its content, after which the connection ends."""
    head = f"content-type: {media_type}\r\ncontent-length: {len(content)}\r\nconnection: close\r\n"
    return bytes(STATUS_LINE[status]) + head.encode() + b"\r\n" + content


def check_head(target: bytes, headers: Iterable[tuple[bytes, bytes]]) -> None:
    """Raise HeadTooLarge for a head that came as a whole."""
    if len(target) + sum([len(name) + len(value) + 4 for name, value in headers]) > HEAD_LIMIT:
        raise _head_too_large()


def _head_too_large() -> HeadTooLarge:
    return HeadTooLarge(
        f"the request line and the headers are larger than {HEAD_LIMIT} bytes",
        hint=f"Send at most {HEAD_LIMIT} bytes of them.",
    )


def _too_slow(part: str, seconds: float) -> TooSlow:
    return TooSlow(f"the request's {part} did not arrive within {seconds:g} s", hint="Send it at once.")


def _end_if_idle(connection: Connection) -> None:
    assert connection._idle_since is not None
    left = connection._idle_since + connection._idle_timeout - connection.loop.time()
    if left > 0:  # there was a request since the timer was started
        connection._patience = connection.loop.call_later(left, _end_if_idle, connection)
    else:
        connection.transport.close()


def _cancel(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
