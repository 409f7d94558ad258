"""The answer to a client, from its head to its end, whatever fails in between."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from starlette.types import Send

from rbee.errors import RbeeError
from rbee.gateway.openai import RETRY_S, error_content, event_of
from rbee.text import printable

Headers = Iterable[tuple[bytes, bytes]]

EVENT_HEADERS = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"))

_EVENT_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")


class Reply:
    """What is sent to a client. A failure is an answer, an event, or a connection that is cut."""

    def __init__(self, scope: Any, send: Send, request_id: str) -> None:
        self.status: int | None = None
        """Of the head, once it is sent."""
        self.is_events = False
        """Are server-sent events being sent?"""
        self.is_cut = False
        """Was the connection closed in the middle?"""
        self.has_failed = False
        self._path: str = scope["path"]
        self._close = scope["rbee.close"]
        self._send = send
        self._request_id = request_id.encode()
        self._is_finished = False
        self._last = b""
        """The last bytes of the content that were sent, as many as end an event."""

    async def head(self, status: int, headers: Headers, *, is_events: bool = False) -> None:
        """Send the head."""
        all_headers = [*headers, (b"x-request-id", self._request_id)]
        await self._send({"type": "http.response.start", "status": status, "headers": all_headers})
        self.status, self.is_events = status, is_events

    async def begin_events(self) -> None:
        """Send the head of a stream whose first event is not there yet."""
        await self.head(200, EVENT_HEADERS, is_events=True)

    async def comment(self, text: str) -> None:
        """Send a comment, which clients ignore, to show that the connection is alive."""
        await self.part(f": {printable(' '.join(text.split()))}\n\n".encode())

    async def part(self, content: bytes) -> None:
        """Send a part of the content, once the client has taken what was sent before."""
        await self._send({"type": "http.response.body", "body": content, "more_body": True})
        self._last = (self._last + content[-4:])[-4:]  # not before: a client may not take it

    async def finish(self, content: bytes = b"") -> None:
        """Send the end."""
        await self._send({"type": "http.response.body", "body": content, "more_body": False})
        self._is_finished = True

    async def whole(self, status: int, content: bytes, media_type: str, headers: Headers = ()) -> None:
        """Send a complete answer."""
        length = str(len(content)).encode()
        described = [(b"content-type", media_type.encode()), (b"content-length", length), *headers]
        await self.head(status, described)
        await self.finish(content)

    async def fail(self, error: RbeeError, *, retry_s: int | None = None, headers: Headers = ()) -> None:
        """Send an error, however much was sent already."""
        if self._is_finished or self.is_cut:
            return
        self.has_failed = True
        content = error_content(error, self._path)
        if self.status is None:
            if retry_s is None and error.status == 503:
                retry_s = RETRY_S
            retry = [] if retry_s is None else [(b"retry-after", str(retry_s).encode())]
            await self.whole(error.status, content, "application/json", [*headers, *retry])
        else:
            await self.cut(content)

    async def cut(self, content: bytes) -> None:
        """End a stream with an error as its last event, and close the connection without the proper end."""
        self.has_failed = True
        if self.is_events:
            is_within_event = self._last and not self._last.endswith(_EVENT_ENDS)
            end = b"\n\n" if is_within_event else b""
            await self.part(end + event_of(content, self._path))
        self.is_cut = True
        self._close()
