"""Narrated lines, and the queen's feed of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from rbee.wire.types import Count, FeedId, JobId, Limit, Name, Priority, Text, Timestamp, Word

Speaker = Literal["bee keeper", "queen bee", "bee hive"]


@dataclass(frozen=True)
class Line:
    """One narrated line of a job's story. `event` is the name of a rbee.narration.Event."""

    speaker: Speaker
    text: Text
    event: Word
    at: Timestamp


@dataclass(frozen=True)
class FeedEvent:
    """One narrated line with its place in the queen's feed.

    `id` is EPOCH-NUMBER: within an epoch the numbers are consecutive, and a new epoch begins when the queen
    has lost the old events. `at` is when it was narrated, `event` is the name of a rbee.narration.Event,
    `priority` is syslog's. `problem` is what could not be read of it.
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
"""The most events of the feed in one answer."""


@dataclass(frozen=True)
class FeedEvents:
    """The last events, oldest first; `id` is that of the feed's last event, after which it continues."""

    id: FeedId
    events: Annotated[tuple[FeedEvent, ...], Limit(0, EVENTS_MAX)]


@dataclass(frozen=True)
class Gap:
    """Events that a reader has missed: all after `after` and before `first`, which is the next."""

    after: FeedId
    first: FeedId
