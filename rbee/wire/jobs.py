"""Jobs of the queen, from their start to the end of their story."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rbee.wire.hives import HiveView
from rbee.wire.types import Count, JobId, Name, Text


@dataclass(frozen=True)
class JobStarted:
    hive_id: Name | None
    job_id: JobId
    events: Text


@dataclass(frozen=True)
class JobView:
    """`state` is 'running' until the story's last event, 'done' or 'error'."""

    id: JobId
    kind: Literal["add-hive", "remove-hive", "shutdown"]
    hive_id: Name | None
    state: Literal["running", "done", "error"]
    started_at_ms: Count
    ended_at_ms: Count | None
    lines: Count
    events: Text


@dataclass(frozen=True)
class Jobs:
    jobs: tuple[JobView, ...]


@dataclass(frozen=True)
class Done:
    """The data of a story's last event when all went well; `hive` is None where none is left.

    `was_there` is false where a hive was to be removed that is not in the catalog.
    """

    hive: HiveView | None
    was_there: bool = True
