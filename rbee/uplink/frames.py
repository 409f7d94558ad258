"""The frames on a hive's control connection, and the requests that begin a hive's connections.

A frame is a line: a JSON object with one member, whose name is the frame's kind and whose value its shape.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from rbee.errors import BadInput, RbeeError
from rbee.server.upgrade import Upgraded
from rbee.wire.codec import decode, encode
from rbee.wire.daemon import Problem
from rbee.wire.heartbeats import Heartbeat, HeartbeatAck
from rbee.wire.routes import INSTANCE_HEADER, VERSION_HEADER, Route, RouteTable
from rbee.wire.types import JobId, Text

PROTOCOL = "rbee-hive/1"
"""The value of the header Upgrade in these requests; an incompatible change gets another number."""

FRAME_LIMIT = 256 * 1024
"""Bytes of a frame; the largest is a beat with its lines."""


class UplinkRoutes(RouteTable):
    """The requests with which a hive dials. The answer is 101, after which the protocol changes."""

    CONTROL: Route[None] = Route(
        "GET", "/v1/uplink", "Become this hive's control connection: frames of JSON lines",
        None, success=101, problems=(400, 403, 404, 409, 503),
        headers=((INSTANCE_HEADER, JobId), (VERSION_HEADER, Text)),
    )  # fmt: skip
    CARRIER: Route[None] = Route(
        "GET", "/v1/uplink/{dial_id}",
        "Become the connection that was asked for: HTTP, with the hive as its server",
        None, success=101, problems=(400, 403, 404, 409, 503),
    )  # fmt: skip


class Dial(NamedTuple):
    """From the queen: dial another connection, and request CARRIER with this id."""

    id: JobId


class Goodbye(NamedTuple):
    """From the queen: it ends the connection. (A hive's goodbye is a beat with the state 'stopping'.)"""


Frame = Heartbeat | HeartbeatAck | Problem | Dial | Goodbye

KINDS: dict[str, type[Frame]] = {
    "beat": Heartbeat,
    "ack": HeartbeatAck,
    "refusal": Problem,
    "dial": Dial,
    "goodbye": Goodbye,
}
"""The hive sends beats; each is answered by an ack or a refusal before the next."""

_NAMES = {shape: kind for kind, shape in KINDS.items()}


def write_frame(frame: Frame) -> bytes:
    """Return a frame as a line."""
    return json.dumps({_NAMES[type(frame)]: encode(frame)}, separators=(",", ":")).encode() + b"\n"


def read_frame(line: bytes) -> Frame:
    """Return the frame in a line; unknown fields of a shape are ignored. Raises BadInput."""
    try:
        members = json.loads(line.decode())  # decoded here, as json would guess the encoding of bytes
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the frame is not JSON: {error}") from error
    if not isinstance(members, dict) or len(members) != 1:
        raise BadInput("a frame must be a JSON object with one member")
    ((kind, value),) = members.items()
    if kind not in KINDS:
        raise BadInput(f"there is no frame of the kind {kind[:64]!r}")
    return decode(KINDS[kind], value, kind)


def refusal_of(error: RbeeError) -> Problem:
    """Return the frame for an error."""
    return decode(Problem, error.to_problem())


class Frames(Upgraded):
    """One end of a control connection: writes and reads frames."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting = b""

    def send(self, frame: Frame) -> None:
        """Send a frame; dropped if the connection is closed."""
        if self.transport is not None:
            self.transport.write(write_frame(frame))

    def data_received(self, data: bytes) -> None:
        *lines, self._waiting = (self._waiting + data).split(b"\n")
        try:
            for line in lines:
                self.received(read_frame(line))
            if len(self._waiting) > FRAME_LIMIT:
                raise BadInput(f"a frame is larger than {FRAME_LIMIT} bytes")
        except BadInput as error:
            self._waiting = b""
            self.broken(error)

    def received(self, frame: Frame) -> None:
        """Process a frame. Raises BadInput for one that the other side may not send."""
        raise NotImplementedError

    def broken(self, error: BadInput) -> None:
        """Handle a violation of the protocol by the other side."""
        raise NotImplementedError


def hello(route: Route[Any], host: str, headers: dict[str, str], **values: str) -> bytes:
    """Return the HTTP request that begins a connection; `values` are for the route's path."""
    lines = (
        f"{route.method} {route.url(**values)} HTTP/1.1",
        f"Host: {host}",
        "Connection: Upgrade",
        f"Upgrade: {PROTOCOL}",
        *(f"{name}: {value}" for name, value in headers.items()),
    )
    return "\r\n".join((*lines, "", "")).encode()
