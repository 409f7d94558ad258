"""Hives: their heartbeats, and how the queen shows and changes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from rbee.wire.devices import Devices
from rbee.wire.events import Line
from rbee.wire.types import (
    Count,
    Fingerprint,
    JobId,
    LabelKey,
    LabelValue,
    Limit,
    Name,
    Port,
    Text,
    Timestamp,
)

Status = Literal["pending", "online", "offline"]
State = Literal["unknown", "pending", "online", "suspect", "offline"]
MachineEnd = Literal["rebooting", "shutting-down"]
"""What a machine does whose units systemd stops all."""


@dataclass(frozen=True)
class Heartbeat:
    """What a hive sends every interval. `state` is 'starting' before it serves, 'stopping' on its way out.

    `instance` is new with each start of the hive's process; `lines` are narrated lines of
    the job `job_id` that go to the keeper through the queen. `fingerprint` is another one when
    the devices may be others; a hive before 0.3.0 sends none. With 'stopping' `machine` says what
    its machine does; a hive before 0.5.0 does not.
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


@dataclass(frozen=True)
class HeartbeatAck:
    """`job_id` names the job that waits for this hive, if one does; `interval_ms` is the beat to keep."""

    status: Literal["ok"]
    interval_ms: Count
    job_id: JobId | None = None


@dataclass(frozen=True)
class HiveHealth:
    """That a hive is well, and whose: `queen` is HOST:PORT where `is_remote_queen`, else a socket's path.

    A hive before 0.5.0 reports neither.
    """

    status: Literal["ok"]
    version: Text
    hive_id: Name | None = None
    queen: Text | None = None
    is_remote_queen: bool = False


@dataclass(frozen=True)
class AddHive:
    """`port` None leaves the port of a hive that is there as it is; a new one gets DEFAULT_PORT."""

    host: Annotated[str, Limit(1, 253)]
    port: Port | None = None


LABELS_MAX = 64


@dataclass(frozen=True)
class Label:
    key: LabelKey
    value: LabelValue


@dataclass(frozen=True)
class HiveView:
    """A row of the catalog with what is known of its life right now.

    `version` is what its last heartbeat said, None where none has come since the queen woke. A hive
    on another machine `is_remote`; then `address` is where it last came from, and `clock_skew_ms` how
    far its clock was ahead of the queen's at its last beat. `interval_ms` is the beat that it was
    told to keep. Of a hive that is cordoned, `cordoned` is the reason. `problem` says what of its row
    could not be read, and is shown as if it were not there.
    """

    id: Name
    host: Name
    port: Port
    status: Status
    devices: Devices | None
    created_at_ms: Count
    updated_at_ms: Count
    wanted: bool
    state: State
    reason: Text
    since_ms: Count
    last_beat_ms: Count | None
    version: Text | None = None
    is_remote: bool = False
    address: Text | None = None
    interval_ms: Count | None = None
    clock_skew_ms: Annotated[int, Limit(-(2**53), 2**53)] | None = None
    labels: Annotated[tuple[Label, ...], Limit(0, LABELS_MAX)] = ()
    cordoned: Text | None = None
    problem: Text | None = None


@dataclass(frozen=True)
class Hives:
    hives: tuple[HiveView, ...]


@dataclass(frozen=True)
class SetLabels:
    """Labels to set, and keys of those to take away."""

    set: Annotated[tuple[Label, ...], Limit(0, LABELS_MAX)] = ()
    remove: Annotated[tuple[LabelKey, ...], Limit(0, LABELS_MAX)] = ()


@dataclass(frozen=True)
class SetCordon:
    """`reason` None takes the cordon away."""

    reason: Text | None
