"""What a hive reports of itself: its heartbeats, and its health."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from rbee.wire.lines import Line
from rbee.wire.types import Count, Fingerprint, JobId, Limit, Name, Text, Timestamp

MachineEnd = Literal["rebooting", "shutting-down"]
"""Why systemd stops all units of a machine."""


class Heartbeat(NamedTuple):
    """What a hive sends every interval. `state` is 'starting' before it serves, 'stopping' when it ends.

    `instance` is new for each process of the hive; `lines` are narrated lines of the job `job_id`, for its
    story. `fingerprint` changes when the devices may have changed; a hive before 0.3.0 sends none. With
    'stopping', `machine` is why its machine stops, if it does; a hive before 0.5.0 does not send it. `work`
    changes with each change of a worker or a fetch; a hive without any sends none.
    """

    hive_id: Name
    timestamp: Timestamp
    workers: Annotated[tuple[Name, ...], Limit(0, 10_000)]
    instance: JobId
    state: Literal["starting", "ready", "stopping"] = "ready"
    version: Text = ""
    job_id: JobId | None = None
    lines: Annotated[tuple[Line, ...], Limit(0, 64)] = ()
    fingerprint: Fingerprint | None = None
    machine: MachineEnd | None = None
    work: Fingerprint | None = None


class HeartbeatAck(NamedTuple):
    """The answer to a beat: when the next is due, and the id of the job that waits for this hive, if any."""

    status: Literal["ok"]
    interval_ms: Count
    job_id: JobId | None = None


class HiveHealth(NamedTuple):
    """A hive's health and its queen: `queen` is HOST:PORT if `is_remote_queen`, otherwise a socket's path.

    A hive before 0.5.0 reports neither.
    """

    status: Literal["ok"]
    version: Text
    hive_id: Name | None = None
    queen: Text | None = None
    is_remote_queen: bool = False
