"""Responses: a shape, a problem, a stream of events or a file."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable
from email.utils import formatdate
from functools import lru_cache
from typing import Any, BinaryIO, Protocol, runtime_checkable

from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl

from rbee.errors import RbeeError
from rbee.wire.codec import encode

FILE_PART = 64 * 1024
"""Bytes of a file that are read and sent at once."""


def json_response(answer: Any, status: int = 200, *, media_type: str = "application/json") -> Response:
    """Return a response with a shape as JSON."""
    return Response(json_content(answer), status, media_type=media_type)


def json_content(answer: Any) -> bytes:
    """Return a shape as JSON. In ASCII, so that names from outside are shown escaped, for example by curl."""
    return _ENCODER.encode(encode(answer)).encode()


_ENCODER = json.JSONEncoder(separators=(",", ":"))


def problem_response(error: RbeeError, headers: dict[str, str] | None = None) -> Response:
    """Return a response with an error as a problem document of RFC 9457, with its status."""
    response = json_response(error.to_problem(), error.status, media_type="application/problem+json")
    response.headers.update(headers or {})
    return response


def date_headers() -> list[tuple[bytes, bytes]]:
    """Return the header Date, which uvicorn's own clock would keep."""
    return headers_at(int(time.time()))


@lru_cache(maxsize=1)
def headers_at(second: int) -> list[tuple[bytes, bytes]]:
    """Return the header Date for a second since the epoch."""
    return [(b"date", formatdate(second, usegmt=True).encode())]


Push = Callable[[Iterable[bytes]], bool]
"""Takes chunks for as long as the client keeps up; returns False once it does not."""


class Chunks(Protocol):
    """The chunks of a stream; aclose() is awaited at its end, even if nothing of it was read."""

    def __aiter__(self) -> AsyncIterator[bytes]: ...

    async def aclose(self) -> None:
        """Release what the stream holds."""


@runtime_checkable
class Pushing(Protocol):
    """Chunks that come while the response awaits the next one are pushed, if `push` is set."""

    push: Push | None


def event_stream(chunks: Chunks) -> Response:
    """Return a response that sends each chunk as it comes, until the chunks end or the client disconnects.

    Chunks that are Pushing are also pushed, to a client that keeps up.
    """
    return _EventStream(chunks)


class _EventStream(Response):
    """Plain ASGI: half the cost of a StreamingResponse, and the same from Starlette 0.26 to 1.x."""

    def __init__(self, chunks: Chunks) -> None:
        headers = {"Cache-Control": "no-store", "Transfer-Encoding": "chunked"}  # as push() writes
        super().__init__(None, 200, headers, "text/event-stream")
        del self.headers["content-length"]
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if isinstance(self._chunks, Pushing) and scope["http_version"] >= "1.1":  # it has chunks
            self._chunks.push = scope["rbee.push"]
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_disconnected(receive))
        try:
            await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            # serve()'s grace is over, and the client has not taken the end: drop the connection, so that
            # uvicorn has no error to log.
            scope["rbee.drop"]()
            await asyncio.wait((leaving,))
        finally:
            sending.cancel()
            leaving.cancel()
            failure, _ = await asyncio.gather(sending, leaving, return_exceptions=True)
            await self._chunks.aclose()
        if isinstance(failure, Exception):
            raise failure

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async for chunk in self._chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def push(transport: asyncio.Transport, flow: FlowControl, chunks: Iterable[bytes]) -> bool:
    """Write chunks of a chunked body for as long as the client keeps up; return False once it does not."""
    if flow.write_paused or transport.is_closing():
        return False
    for chunk in chunks:
        transport.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        if flow.write_paused:
            return False
    return True


def file_answer(file: BinaryIO, media_type: str) -> Response:
    """Return a response that sends an open file and closes it."""
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
            has_more = True
            while has_more:
                part = self._file.read(FILE_PART)
                has_more = bool(part)
                await send({"type": "http.response.body", "body": part, "more_body": has_more})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
