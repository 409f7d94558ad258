"""What crosses a connection by which the gateway leases a worker for a request.

The connection begins with `GET /v1/lease` and `Upgrade: rbee-lease/1`, or at a hive with
`GET /v1/workers/{worker_id}/connect` and `Upgrade: rbee-worker/1`. After the 101 each side sends JSON lines:
one Ask from the gateway (a hive is asked nothing more), then from the other side any number of Waits, and
at last one Granted, which has a file descriptor (SCM_RIGHTS), a connection to the engine, or one Refused.
A line is an object with one member, named after the frame: {"wait": {"text": "loading bee", "percent": 40}}.
The lease is held until the gateway closes the connection, or its process ends. A Refused after the Granted
ends it: the gateway closes its connection to the engine. If the queen's end just closes, she has stopped: the
gateway goes on, connects again, and sends an Ask with `resume`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any

from rbee.errors import BadInput
from rbee.wire.codec import decode, encode
from rbee.wire.routes import LEASE_PROTOCOL as LEASE_PROTOCOL
from rbee.wire.types import Count, JobId, Limit, Percent, Sha256, Text, WorkerId

CONNECT_PROTOCOL = "rbee-worker/1"
LINE_MAX = 64 * 1024
"""Bytes of a line, with its end."""


@dataclass(frozen=True)
class Ask:
    """A request for a worker of `model`. `key` is the SHA-256 of a client's key, None over the Unix socket.

    `uid` is the client's, over the Unix socket. With `resume` the gateway holds a lease of that worker
    already, from a queen before this one: it is counted, and no descriptor is sent.
    """

    model: Annotated[str, Limit(1, 253)]
    request_id: JobId
    hold_ms: Count
    uid: Count | None = None
    key: Sha256 | None = None
    address: Text | None = None
    resume: WorkerId | None = None


@dataclass(frozen=True)
class Wait:
    """The worker is not ready yet."""

    text: Text
    percent: Percent | None = None
    job_id: JobId | None = None


@dataclass(frozen=True)
class Granted:
    """The worker that answers; the descriptor comes with this line, unless the lease was resumed."""

    worker: WorkerId
    was_cold: bool
    job_id: JobId | None = None


@dataclass(frozen=True)
class Refused:
    """Why there is no worker: a problem document's members (rbee.errors). `retry_s` is for Retry-After."""

    problem: dict[str, Any]
    retry_s: Count | None = None


Frame = Ask | Wait | Granted | Refused

_KINDS: dict[str, type[Any]] = {"ask": Ask, "wait": Wait, "granted": Granted, "refused": Refused}
_NAMES = {kind: name for name, kind in _KINDS.items()}


def encode_frame(frame: Frame) -> bytes:
    """Return a frame as a line, with its end. Raises BadInput if it is longer than LINE_MAX."""
    line = json.dumps({_NAMES[type(frame)]: encode(frame)}, separators=(",", ":")).encode() + b"\n"
    if len(line) > LINE_MAX:
        raise BadInput(f"a frame may have at most {LINE_MAX} bytes, and has {len(line)}")
    return line


def decode_frame(line: bytes) -> Frame:
    """Return the frame in a line. Raises BadInput."""
    if len(line) > LINE_MAX:
        raise BadInput(f"a frame may have at most {LINE_MAX} bytes, and has {len(line)}")
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"the frame is not JSON: {error}") from error
    if not isinstance(value, dict) or len(value) != 1:
        raise BadInput("the frame must be a JSON object with one member")
    ((name, body),) = value.items()
    if name not in _KINDS:
        raise BadInput(f"the frame must be one of {', '.join(_KINDS)}")
    frame: Frame = decode(_KINDS[name], body, name)
    return frame
