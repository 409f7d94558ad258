"""The records of the stores, and how a table's row becomes one: a bad row never hides the others."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Container, Mapping
from itertools import chain, count
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple

from rbee.errors import TEXT_LIMIT, BadInput
from rbee.queen.store.engine import Value
from rbee.wire.codec import decode, encode
from rbee.wire.devices import Devices
from rbee.wire.hives import LABELS_MAX, Label, Status
from rbee.wire.rows import read_row
from rbee.wire.types import Count, Limit, Name, Port, Text

Actor = Mapping[str, str]
"""Who requested a write, as fields for the journal: actor_uid, actor_pid, and job_id if there is one."""


def now_ms() -> int:
    """Return the milliseconds since the epoch, the unit of every time in the catalog."""
    return time.time_ns() // 1_000_000


def free_name(name: str, taken: Container[str]) -> str:
    """Return the name, with a number if it is taken: rows with unreadable names all have the same one."""
    return next(one for one in chain([name], (f"{name}-{number}" for number in count(2))) if one not in taken)


class Row(NamedTuple):
    """A row of the table hives. Times are milliseconds since the epoch.

    Only a remote hive has `machine`, `credential` and, once it has connected, `address`.
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
    labels: Mapping[str, str] = MappingProxyType({})
    cordoned: str | None = None
    former_credential: str | None = None
    """The one used before the last join, until the hive uses the new one: the answer with it may be lost."""
    report: str | None = None
    """The hive's process, a space, and the fingerprint in its beats when it reported `devices`."""
    problem: str | None = None
    """What could not be read of it; those fields have blank values."""

    @property
    def is_remote(self) -> bool:
        """Is it a hive on another machine, which has joined?"""
        return self.credential is not None

    @property
    def credentials(self) -> tuple[str, ...]:
        """The credentials that its machine may use; () for the local hive."""
        return tuple(one for one in (self.credential, self.former_credential) if one is not None)


class Joining(NamedTuple):
    """A machine that asks to join as a hive, and the token that it shows."""

    hive_id: str
    machine: str
    credential: str
    address: str
    token_id: str
    token_hash: str


class Change(NamedTuple):
    """A change that a write has made, for the audit and the journal; `by` is None if the queen made it."""

    hive_id: str | None
    text: str
    by: Actor | None
    is_audited: bool = True

    def actor(self) -> Actor:
        """Return who made it; the queen's own process if nobody requested it."""
        return self.by or {"actor_uid": str(os.geteuid()), "actor_pid": str(os.getpid())}


# Rows of the hives


COLUMNS = (
    "id, host, port, status, devices, created_at_ms, updated_at_ms, wanted, machine, credential, "
    "address, labels, cordoned, former_credential, report"
)

# A former credential counts only with its successor: the previous release, which does not know that table,
# may have replaced the credential since.
TABLES = (
    "hives LEFT JOIN former_credentials AS former ON former.hive = id AND successor = credential "
    "LEFT JOIN reports ON reports.hive = id"
)


class _Stored(NamedTuple):
    """The columns of a hive and what they may contain."""

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
    report: Text | None
    problem: Text | None = None


def read_hive(row: tuple[Any, ...]) -> Row:
    """Return the Row for values in the order of COLUMNS; `problem` names what cannot be read."""
    columns = dict(zip(COLUMNS.split(", "), row, strict=True))
    devices, problem = _devices(columns.pop("devices"))
    columns["wanted"] = bool(columns["wanted"])
    columns["labels"] = _labels(columns["labels"])
    stored = read_row(_Stored, columns)
    return Row(
        stored.id, stored.host, stored.port, stored.status, devices, stored.created_at_ms,
        stored.updated_at_ms, stored.wanted, stored.machine, stored.credential, stored.address,
        {label.key: label.value for label in stored.labels}, stored.cordoned, stored.former_credential,
        stored.report,
        "; ".join(filter(None, [stored.problem, problem]))[:TEXT_LIMIT] or None,
    )  # fmt: skip


def as_stored(value: Any) -> Value:
    """Return a Row's field as the value of its column."""
    if isinstance(value, Devices):
        return json.dumps(encode(value), ensure_ascii=False)
    if isinstance(value, Mapping):
        return json.dumps(dict(value), sort_keys=True)
    if isinstance(value, bool):
        return int(value)
    assert value is None or isinstance(value, str | int)
    return value


def _devices(stored: str | None) -> tuple[Devices | None, str | None]:
    """Return the devices, or what is wrong with them; the hive is asked again at its next start."""
    if stored is None:
        return None, None
    try:
        return decode(Devices, json.loads(stored), "devices"), None
    except ValueError:
        return None, "devices must be JSON"
    except BadInput as error:
        return None, error.message


def _labels(stored: str) -> Any:
    """Return labels as a shape has them; what is not a JSON object is returned for read_row() to refuse."""
    try:
        labels = json.loads(stored)
    except ValueError:
        return stored
    return (
        [{"key": key, "value": value} for key, value in labels.items()]
        if isinstance(labels, dict)
        else labels
    )
