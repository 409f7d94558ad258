"""A client of the gateway on this machine: one chat completion, as it comes."""

from __future__ import annotations

import errno
import http.client
import json
import os
import socket
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from rbee.errors import (
    PROBLEM_PREFIX,
    BadInput,
    Disconnected,
    NotPermitted,
    NotRunning,
    RbeeError,
    TimedOut,
    Unreachable,
    from_problem,
)
from rbee.files import reason
from rbee.scope import GATEWAY_SOCKET_UNIT, GATEWAY_UNIT, Scope
from rbee.text import shown_span

PATH = "/v1/chat/completions"

CONNECT_TIMEOUT = 10.0
"""Seconds."""

SILENCE = 600.0
"""Seconds without a byte after which an answer counts as lost: a long prompt can take minutes on a CPU."""

ANSWER_LIMIT = 64 * 1024 * 1024
"""The most bytes of an answer that is not streamed."""

EVENT_LIMIT = 4 * 1024 * 1024
"""The most bytes of one line of a stream."""

END = "[DONE]"


class Said(NamedTuple):
    """A part of the answer; `end` is why it ends, such as 'stop' or 'length', with the last part."""

    text: str
    end: str | None = None


class Waits(NamedTuple):
    """The gateway's comment while the model is not ready yet."""

    text: str


class Request(NamedTuple):
    """A request for one answer. `system` is the instructions before the prompt."""

    model: str
    prompt: str
    system: str | None = None
    max_tokens: int | None = None

    def body(self, *, streams: bool) -> bytes:
        """The JSON of the OpenAI API."""
        messages = [] if self.system is None else [{"role": "system", "content": self.system}]
        messages.append({"role": "user", "content": self.prompt})
        asked: dict[str, Any] = {"model": self.model, "messages": messages, "stream": streams}
        if self.max_tokens is not None:
            asked["max_tokens"] = self.max_tokens
        return json.dumps(asked).encode()


class Gateway:
    """The gateway behind a Unix socket. `left` bounds each wait, as Deadline.left()."""

    def __init__(self, path: Path, scope: Scope, left: Callable[[float], float]) -> None:
        self._path = path
        self._scope = scope
        self._left = left

    def answer(self, request: Request) -> bytes:
        """The whole answer, a JSON document of the OpenAI API. Raises as stream()."""
        with closing(_Connection(self._path, self._scope, self._left)) as connection:
            parts = bytearray()
            for part in connection.post(request.body(streams=False)):
                parts += part
                if len(parts) > ANSWER_LIMIT:
                    raise Unreachable(f"the answer is larger than {ANSWER_LIMIT} bytes")
            return bytes(parts)

    def stream(self, request: Request) -> Generator[Said | Waits, None, None]:
        """Yield the answer as it comes. To leave it early, close the iterator: that ends the request.

        Raises the gateway's refusal, NotRunning, NotPermitted, TimedOut, Disconnected or Unreachable.
        """
        with closing(_Connection(self._path, self._scope, self._left)) as connection:
            for line in _lines(connection.post(request.body(streams=True))):
                if line.startswith(":"):
                    if text := line[1:].strip():
                        yield Waits(text)
                elif line.startswith("data:"):
                    data = line[5:].strip()
                    if data == END:
                        return
                    yield _said(data)
        raise Disconnected(
            "the answer is incomplete: the worker or the gateway stopped or crashed",
            hint=self._scope.rbeectl(f"status {request.model}"),
        )


class _Connection:
    """One request over a connection of its own."""

    def __init__(self, path: Path, scope: Scope, left: Callable[[float], float]) -> None:
        self._path = path
        self._scope = scope
        self._left = left
        self._channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._http = http.client.HTTPConnection("rbee")
        self._http.sock = self._channel

    def close(self) -> None:
        self._channel.close()
        self._http.close()

    def post(self, body: bytes) -> Iterator[bytes]:
        """Send the request; yield the parts of the answer's body. Raises the gateway's refusal."""
        try:
            self._channel.settimeout(self._left(CONNECT_TIMEOUT))
            self._channel.connect(os.fspath(self._path))
        except OSError as error:
            raise self._not_reached(error) from error
        try:
            yield from self._exchange(body)
        except TimeoutError as error:
            self._left(SILENCE)  # TimedOut, if that was --timeout
            raise TimedOut(
                f"the gateway was silent for {shown_span(SILENCE)}",
                hint=self._scope.where_to_look(GATEWAY_UNIT),
            ) from error
        except (OSError, http.client.HTTPException) as error:
            raise Disconnected(
                f"the connection to the gateway broke ({_how_it_broke(error)})",
                hint=self._scope.where_to_look(GATEWAY_UNIT),
            ) from error

    def _exchange(self, body: bytes) -> Iterator[bytes]:
        self._channel.settimeout(self._left(SILENCE))
        self._http.request("POST", PATH, body, {"Content-Type": "application/json", "Connection": "close"})
        response = self._http.getresponse()
        if response.status >= 400:
            raise refusal(response.read(EVENT_LIMIT), response.status)
        while True:
            self._channel.settimeout(self._left(SILENCE))
            part = response.read1(65536)
            if not part:
                return
            yield part

    def _not_reached(self, error: OSError) -> RbeeError:
        if error.errno in (errno.EACCES, errno.EPERM):
            return NotPermitted(f"{self._path} is not open to you")
        if isinstance(error, TimeoutError):
            self._left(CONNECT_TIMEOUT)
        return NotRunning(
            f"nobody listens on {self._path} ({reason(error)})",
            hint=self._scope.systemctl(f"status {GATEWAY_SOCKET_UNIT}"),
        )


def _how_it_broke(error: OSError | http.client.HTTPException) -> str:
    if isinstance(error, http.client.IncompleteRead | http.client.RemoteDisconnected):
        return "it was closed in the middle of an answer"
    return reason(error) if isinstance(error, OSError) else str(error) or type(error).__name__


def _lines(parts: Iterator[bytes]) -> Iterator[str]:
    """The lines of an event stream, without their ends. Bytes that are not UTF-8 are replaced."""
    waiting = b""
    for part in parts:
        *lines, waiting = (waiting + part).split(b"\n")
        if len(waiting) > EVENT_LIMIT:
            raise Unreachable(f"a line of the answer is larger than {EVENT_LIMIT} bytes")
        for line in lines:
            yield line.rstrip(b"\r").decode(errors="replace")


def _said(data: str) -> Said:
    """The text in one chunk of a chat completion; raises the error if it has one instead."""
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise Unreachable(f"an event of the answer is not JSON: {data[:100]!r}") from error
    if isinstance(chunk, dict) and chunk.get("error"):
        raise refusal(data.encode(), 500)
    try:
        # The chunk with the usage has no choices.
        choice: Any = next(iter(chunk["choices"]), {})
        text = choice.get("delta", {}).get("content")
        end = choice.get("finish_reason")
    except (AttributeError, KeyError, TypeError) as error:
        raise Unreachable(f"an event of the answer is not a chat completion: {data[:100]!r}") from error
    return Said(text if isinstance(text, str) else "", end if isinstance(end, str) else None)


_SLUGS = {"model_not_found": "unknown-model", "invalid_api_key": "bad-key"}
"""Slugs of rbee.errors for the OpenAI API's own codes; the gateway's other codes are such slugs already."""


def refusal(content: bytes, status: int) -> RbeeError:
    """The error in an answer in the shape of the OpenAI API, of the gateway itself or of the engine."""
    try:
        error = json.loads(content)["error"]
        message, code, hint = error["message"], error.get("code"), error.get("hint")
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        message, code, hint = None, None, None
    if not isinstance(message, str):
        return Unreachable(f"the gateway's answer (status {status}) is not an error of the OpenAI API")
    slug = _SLUGS.get(code, code.replace("_", "-")) if isinstance(code, str) else ""
    detail = error.get("detail") or message  # the message of the gateway's own errors ends with the hint
    known = from_problem({"type": PROBLEM_PREFIX + slug, "detail": detail, "hint": hint})
    if type(known) is RbeeError and status in (400, 413, 422):
        return BadInput(message)
    return known
