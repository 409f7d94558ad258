"""Hives: their heartbeats, and how the queen shows and changes them."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from rbee.wire.devices import Devices
from rbee.wire.types import (
    Count,
    LabelKey,
    LabelValue,
    Limit,
    Name,
    Place,
    Port,
    Text,
)

Status = Literal["pending", "online", "offline"]
State = Literal["unknown", "pending", "online", "suspect", "offline"]


class AddHive(NamedTuple):
    """A hive to add; with `port` None an existing hive keeps its port, and a new one gets DEFAULT_PORT."""

    host: Annotated[str, Limit(1, 253)]
    port: Port | None = None


LABELS_MAX = 64


class Label(NamedTuple):
    """A label of a hive."""

    key: LabelKey
    value: LabelValue


class HiveView(NamedTuple):
    """A hive: its row in the catalog, and its state right now. `wanted` is whether it is desired.

    `version` is the one in its last heartbeat, None before the first since the queen started. For a remote
    hive `address` is the one it last connected from, and `clock_skew_ms` how far its clock was ahead of the
    queen's at its last beat. `interval_ms` is the one in the last acknowledgement. `cordoned` is the reason
    for a cordon, None without one. `problem` is what could not be read of the row.
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


class Hives(NamedTuple):
    """Hives in the catalog, by id; `next` is the `after` of the next page, None if there is none."""

    hives: tuple[HiveView, ...]
    next: Place | None = None


class SetLabels(NamedTuple):
    """Labels to set, and the keys of those to remove."""

    set: Annotated[tuple[Label, ...], Limit(0, LABELS_MAX)] = ()
    remove: Annotated[tuple[LabelKey, ...], Limit(0, LABELS_MAX)] = ()


class SetCordon(NamedTuple):
    """A cordon to set; `reason` None removes it."""

    reason: Text | None
