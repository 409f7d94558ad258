"""Answers to HTTP/1.0, which has no chunks: one without Content-Length ends with its connection."""

from __future__ import annotations

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle


class UnchunkedSend:
    """The send() of a request, in place of uvicorn's, which makes chunks of every body of unknown length."""

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle = cycle
        self._send = cycle.send
        self._ends_with_connection = False
        cycle.keep_alive = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            message = self._head(message)
        elif self._ends_with_connection:
            # uvicorn compares a body without chunks with the length that it expects.
            self._cycle.expected_content_length = len(message.get("body", b""))
        await self._send(message)  # type: ignore[arg-type]  # the same shape, by another name

    def _head(self, head: Message) -> Message:
        headers = [header for header in head.get("headers", ()) if header[0].lower() != b"transfer-encoding"]
        names = {name.lower() for name, _ in headers}
        if b"content-length" not in names:
            self._ends_with_connection = True
            self._cycle.chunked_encoding = False
            if b"connection" not in names:  # older versions of uvicorn do not add it
                headers.append((b"connection", b"close"))
        return {**head, "headers": headers}
