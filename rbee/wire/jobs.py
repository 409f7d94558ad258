"""Jobs of the queen, and the ends of their stories."""

from __future__ import annotations

from typing import Literal, NamedTuple

from rbee.wire.hives import HiveView
from rbee.wire.models import ModelView
from rbee.wire.types import Count, JobId, Name, Text

JobKind = Literal[
    "add-hive", "remove-hive", "shutdown", "add-model", "remove-model", "start-worker", "unserve"
]


class JobStarted(NamedTuple):
    """A job has begun; `events` is the path of its story."""

    hive_id: Name | None
    job_id: JobId
    events: Text


class JobView(NamedTuple):
    """A job; `state` is 'running' until the story's last event, which is 'done' or 'error'."""

    id: JobId
    kind: JobKind
    hive_id: Name | None
    state: Literal["running", "done", "error"]
    started_at_ms: Count
    ended_at_ms: Count | None
    lines: Count
    events: Text


class Jobs(NamedTuple):
    """The jobs that the queen keeps, newest first."""

    jobs: tuple[JobView, ...]


class Done(NamedTuple):
    """The data of the last event of a successful story; `hive` is None after a removal or a shutdown.

    `was_there` is false if a hive or model to be removed was not in the catalog.
    """

    hive: HiveView | None
    was_there: bool = True
    model: ModelView | None = None
