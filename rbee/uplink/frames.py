"""What crosses a hive's control connection, and the requests with which connections begin.

A frame is a line: a JSON object with one member, the frame's kind and its shape.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from rbee.errors import BadInput, RbeeError
from rbee.server.upgrade import Upgraded
from rbee.wire.codec import decode, encode
from rbee.wire.daemon import Problem
from rbee.wire.hives import Heartbeat, HeartbeatAck
from rbee.wire.routes import INSTANCE_HEADER, VERSION_HEADER, Route, RouteTable
from rbee.wire.types import JobId, Text

PROTOCOL = "rbee-hive/1"
"""What a request of these names in its header Upgrade; another number is another language."""

FRAME_LIMIT = 256 * 1024
"""Bytes of a frame: a beat with its lines is the largest."""


class UplinkRoutes(RouteTable):
    """What a hive dials for. Each is answered with 101, and the connection goes on with something else."""

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


@dataclass(frozen=True)
class Dial:
    """From the queen: dial another connection, and ask for CARRIER with this id."""

    id: JobId


@dataclass(frozen=True)
class Goodbye:
    """From the queen: she ends the connection in order. (A hive's goodbye is a beat, 'stopping'.)"""


Frame = Heartbeat | HeartbeatAck | Problem | Dial | Goodbye

KINDS: dict[str, type[Frame]] = {
    "beat": Heartbeat,
    "ack": HeartbeatAck,
    "refusal": Problem,
    "dial": Dial,
    "goodbye": Goodbye,
}
"""A beat is the hive's; it is answered by an ack or a refusal before the next."""

_NAMES = {shape: kind for kind, shape in KINDS.items()}


def write_frame(frame: Frame) -> bytes:
    return json.dumps({_NAMES[type(frame)]: encode(frame)}, separators=(",", ":")).encode() + b"\n"


def read_frame(line: bytes) -> Frame:
    """BadInput for what is no frame; a field that a shape does not know is passed over."""
    try:
        found = json.loads(line.decode())  # bytes would be looked at for their encoding first
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the frame is not JSON: {error}") from error
    if not isinstance(found, dict) or len(found) != 1:
        raise BadInput("a frame is a JSON object with one member")
    ((kind, value),) = found.items()
    if kind not in KINDS:
        raise BadInput(f"no frame is called {kind[:64]!r}")
    return decode(KINDS[kind], value, kind)


def refusal_of(error: RbeeError) -> Problem:
    return decode(Problem, error.to_problem())


class Frames(Upgraded):
    """One end of a control connection."""

    def __init__(self) -> None:
        super().__init__()
        self._waiting = b""

    def send(self, frame: Frame) -> None:
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
        """One has come; BadInput for one that is not the other side's to send."""
        raise NotImplementedError

    def broken(self, error: BadInput) -> None:
        """The other side does not keep to what is agreed."""
        raise NotImplementedError


def hello(route: Route[Any], host: str, headers: dict[str, str], **values: str) -> bytes:
    """The request with which a connection begins."""
    lines = (
        f"{route.method} {route.url(**values)} HTTP/1.1",
        f"Host: {host}",
        "Connection: Upgrade",
        f"Upgrade: {PROTOCOL}",
        *(f"{name}: {value}" for name, value in headers.items()),
    )
    return "\r\n".join((*lines, "", "")).encode()
