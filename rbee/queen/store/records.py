"""What the stores keep, and how a row of a table becomes one of these: a bad row hides no other."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from rbee.errors import TEXT_LIMIT, BadInput
from rbee.queen.store.engine import Value
from rbee.wire.codec import decode, encode
from rbee.wire.devices import Devices
from rbee.wire.hives import LABELS_MAX, Label, Status
from rbee.wire.rows import read_row
from rbee.wire.types import Count, Limit, Name, Port, Text

Actor = Mapping[str, str]
"""Who asked for a write, as fields for the journal: actor_uid, actor_pid, and job_id where there is one."""


def now_ms() -> int:
    """Milliseconds since the epoch, as every time in the catalog."""
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Row:
    """A hive as it stands in the table. Times are milliseconds since the epoch.

    Only one on another machine has `machine`, `credential` and, once it was heard of, `address`.
    """

    id: str
    host: str
    port: int
    status: Status
    devices: Devices | None
    created_at_ms: int
    updated_at_ms: int
    wanted: bool
    machine: str | None = None
    credential: str | None = None
    address: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    cordoned: str | None = None
    former_credential: str | None = None
    """Of the join before, until the hive has used the credential of the last one: its answer may be lost."""
    problem: str | None = None
    """What of it could not be read, and stands here as if it were not there."""

    @property
    def is_remote(self) -> bool:
        return self.credential is not None

    @property
    def credentials(self) -> tuple[str, ...]:
        """What its machine may prove itself by; none of the queen's own machine."""
        return tuple(one for one in (self.credential, self.former_credential) if one is not None)


@dataclass(frozen=True, slots=True)
class Joining:
    """A machine that would become a hive, and the token that it shows for it."""

    hive_id: str
    machine: str
    credential: str
    address: str
    token_id: str
    token_hash: str


@dataclass(frozen=True, slots=True)
class Change:
    """What a write means, for the audit and the journal. Nobody asked for what is the queen's own doing."""

    hive_id: str | None
    text: str
    by: Actor | None
    is_audited: bool = True

    def actor(self) -> Actor:
        return self.by or {"actor_uid": str(os.geteuid()), "actor_pid": str(os.getpid())}


# Rows of the table hives


COLUMNS = (
    "id, host, port, status, devices, created_at_ms, updated_at_ms, wanted, machine, credential, "
    "address, labels, cordoned, former_credential"
)


@dataclass(frozen=True)
class _Stored:
    """A row of the table hives as a queen writes it."""

    id: Name
    host: Name
    port: Port
    status: Status
    created_at_ms: Count
    updated_at_ms: Count
    wanted: bool
    machine: Text | None
    credential: Text | None
    address: Text | None
    labels: Annotated[tuple[Label, ...], Limit(0, LABELS_MAX)]
    cordoned: Text | None
    former_credential: Text | None
    problem: Text | None = None


def read_hive(found: tuple[Any, ...]) -> Row:
    """A row of COLUMNS; what cannot be read in it is its `problem`."""
    columns = dict(zip(COLUMNS.split(", "), found, strict=True))
    devices, problem = _devices(columns.pop("devices"))
    columns["wanted"] = bool(columns["wanted"])
    columns["labels"] = _labels(columns["labels"])
    stored = read_row(_Stored, columns)
    return Row(
        stored.id, stored.host, stored.port, stored.status, devices, stored.created_at_ms,
        stored.updated_at_ms, stored.wanted, stored.machine, stored.credential, stored.address,
        {label.key: label.value for label in stored.labels}, stored.cordoned, stored.former_credential,
        "; ".join(filter(None, [stored.problem, problem]))[:TEXT_LIMIT] or None,
    )  # fmt: skip


def as_stored(value: Any) -> Value:
    """A field of a Row as its column has it."""
    if isinstance(value, Devices):
        return json.dumps(encode(value), ensure_ascii=False)
    if isinstance(value, Mapping):
        return json.dumps(dict(value), sort_keys=True)
    if isinstance(value, bool):
        return int(value)
    assert value is None or isinstance(value, str | int)
    return value


def _devices(stored: str | None) -> tuple[Devices | None, str | None]:
    """The devices, or what is wrong with them; the hive is asked for them anew at its next start."""
    if stored is None:
        return None, None
    try:
        return decode(Devices, json.loads(stored), "devices"), None
    except ValueError:
        return None, "devices must be JSON"
    except BadInput as error:
        return None, error.message


def _labels(stored: str) -> Any:
    """As a shape's labels are; what is not a JSON object is passed on, to be found wrong."""
    try:
        labels = json.loads(stored)
    except ValueError:
        return stored
    return (
        [{"key": key, "value": value} for key, value in labels.items()]
        if isinstance(labels, dict)
        else labels
    )
