"""Lines that are narrated, and the queen's feed of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from rbee.wire.types import Count, FeedId, JobId, Limit, Name, Priority, Text, Timestamp, Word

Speaker = Literal["bee keeper", "queen bee", "bee hive"]


@dataclass(frozen=True)
class Line:
    """One narrated line of a job's story. `event` names the entry of the journal's catalog."""

    speaker: Speaker
    text: Text
    event: Word
    at: Timestamp


@dataclass(frozen=True)
class FeedEvent:
    """One narrated line of whoever speaks, with its place in the queen's feed.

    `id` is EPOCH-NUMBER: of one epoch each event has the number after that of the one before it,
    and a new epoch begins where the queen knows nothing of the old one any more. `at` is when she
    told it, `event` names the entry of the journal's catalog, `priority` is syslog's. `problem` says what
    of it could not be read.
    """

    id: FeedId
    at: Timestamp
    event: Word
    speaker: Speaker
    priority: Priority
    text: Text
    hive: Name | None = None
    job_id: JobId | None = None
    actor_uid: Count | None = None
    problem: Text | None = None


EVENTS_MAX = 1000
"""Events of the feed that are told at once."""


@dataclass(frozen=True)
class FeedEvents:
    """The last events that were asked for, oldest first; the feed stands at `id`, and goes on after it."""

    id: FeedId
    events: Annotated[tuple[FeedEvent, ...], Limit(0, EVENTS_MAX)]


@dataclass(frozen=True)
class Gap:
    """What a reader has missed for good: all that came after `after` and before `first`, the next."""

    after: FeedId
    first: FeedId
