"""Server-sent events, as the queen writes them and clients read them.

A subset of the HTML standard: lines end with a line feed, and an event has one line of data, which is JSON.
"""

from __future__ import annotations

from typing import NamedTuple

from rbee.errors import Unreachable

KEEP_ALIVE = 10.0
"""Seconds of silence after which a stream gets a COMMENT, which shows that it is alive."""

COMMENT = b": still here\n\n"


class Event(NamedTuple):
    """One event of a stream; a field without a line is None. `data` is JSON, not yet parsed."""

    id: str | None
    kind: str | None
    data: str | None


def event(at: int | str, kind: str, data: bytes) -> bytes:
    """Return an event with an id. `data` is JSON on one line."""
    return f"id: {at}\nevent: {kind}\ndata: ".encode() + data + b"\n\n"


def place(at: str) -> bytes:
    """Return an event with only an id, after which a reader may resume."""
    return f"id: {at}\n\n".encode()


class Parser:
    """Splits a stream's bytes into events, in whatever pieces they come. `limit` is an event's in bytes."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting = b""

    def feed(self, part: bytes) -> list[Event]:
        """Return the events that are complete now, without comments. Raises Unreachable beyond the limit."""
        *blocks, self._waiting = (self._waiting + part).split(b"\n\n")
        if len(self._waiting) > self._limit:
            raise Unreachable(f"an event of the stream is larger than {self._limit} bytes")
        events = map(_read, blocks)
        return [event for event in events if event.id is not None or event.data is not None]


def _read(block: bytes) -> Event:
    lines = (line.partition(":") for line in block.decode(errors="replace").splitlines())
    fields = {name: value.removeprefix(" ") for name, _, value in lines}
    return Event(fields.get("id"), fields.get("event"), fields.get("data"))
