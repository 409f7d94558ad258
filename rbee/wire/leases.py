"""The protocol by which the gateway leases a worker for a request.

The connection begins with `GET /v1/lease` and `Upgrade: rbee-lease/1`, or at a hive with
`GET /v1/workers/{worker_id}/connect` and `Upgrade: rbee-worker/1`. After the 101 response each side sends
JSON lines. A line is an object with one member, named after the frame:
{"wait": {"text": "loading bee", "percent": 40}}.

The gateway sends an Ask. The queen answers with any number of Waits, and then one Refused, after which it
closes the connection, or one Granted together with a file descriptor (SCM_RIGHTS), which is a connection to
the engine. The gateway ends the lease with an End, which the queen answers with an End, and the next Ask may
follow; or it closes the connection, as it does when its process ends. A Refused after the Granted ends the
lease, too: the gateway closes its connection to the engine. If the queen's end closes without a frame, the
queen has stopped: the gateway keeps its connection to the engine, connects to the queen again, and sends an
Ask with `resume`.

A hive answers the request with a Granted and a descriptor. For one more the queen sends a Connect over the
same connection, and gets a Granted, or a Refused; one at a time.
"""

from __future__ import annotations

import json
from typing import Annotated, Any, NamedTuple

from rbee.errors import BadInput
from rbee.wire.codec import decode, encode
from rbee.wire.routes import LEASE_PROTOCOL as LEASE_PROTOCOL
from rbee.wire.types import Count, JobId, Limit, Percent, Sha256, Text, WorkerId

CONNECT_PROTOCOL = "rbee-worker/1"
LINE_MAX = 64 * 1024
"""The most bytes of a line, with its line feed."""


class Ask(NamedTuple):
    """A request for a worker of `model`, which waits at most `hold_ms` for it.

    A client on the Unix socket has a `uid`, one on TCP an `address` and a `key`, the SHA-256 of its key. With
    `resume` the gateway already holds a lease of that worker from an earlier queen process: the lease is
    counted, and no descriptor is sent.
    """

    model: Annotated[str, Limit(1, 253)]
    request_id: JobId
    hold_ms: Count
    uid: Count | None = None
    key: Sha256 | None = None
    address: Text | None = None
    resume: WorkerId | None = None


class Wait(NamedTuple):
    """The worker is not ready yet; `job_id` is the job that starts it."""

    text: Text
    percent: Percent | None = None
    job_id: JobId | None = None


class Granted(NamedTuple):
    """The leased worker; the descriptor comes with this line, unless the lease was resumed.

    `was_cold` is whether the request had to wait for the worker to start.
    """

    worker: WorkerId
    was_cold: bool
    job_id: JobId | None = None


class Refused(NamedTuple):
    """Why there is no worker, as the members of a problem document (rbee.errors); `retry_s` is in seconds."""

    problem: dict[str, Any]
    retry_s: Count | None = None


class End(NamedTuple):
    """The lease has ended: said by the gateway, and confirmed by the queen."""


class Connect(NamedTuple):
    """A request to a hive for one more connection, to the engine of `worker`."""

    worker: WorkerId


Frame = Ask | Wait | Granted | Refused | End | Connect

_KINDS: dict[str, type[Any]] = {
    "ask": Ask, "wait": Wait, "granted": Granted, "refused": Refused, "end": End, "connect": Connect,
}  # fmt: skip
_NAMES = {kind: name for name, kind in _KINDS.items()}


def encode_frame(frame: Frame) -> bytes:
    """Return a frame as a line, with its line feed. Raises BadInput if it is longer than LINE_MAX."""
    line = json.dumps({_NAMES[type(frame)]: encode(frame)}, separators=(",", ":")).encode() + b"\n"
    if len(line) > LINE_MAX:
        raise BadInput(f"a frame may have at most {LINE_MAX} bytes, and has {len(line)}")
    return line


def decode_frame(line: bytes) -> Frame:
    """Return the frame in a line. Raises BadInput if it is too long, or not a valid frame."""
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


class FrameBuffer:
    """What has come of a frame, for a side whose peer sends one at a time."""

    def __init__(self) -> None:
        self._received = b""

    def add(self, data: bytes) -> Frame | None:
        """Return the frame that is whole with `data`, None if more is to come.

        Raises BadInput if it is not valid or too long, or if something follows it.
        """
        self._received += data
        line, end, rest = self._received.partition(b"\n")
        if not end and len(line) < LINE_MAX:
            return None
        self._received = b""
        frame = decode_frame(line)
        if rest:
            raise BadInput("one frame at a time is answered")
        return frame
