"""The queen's feed of narrated lines."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from rbee.wire.lines import Speaker
from rbee.wire.types import EVENTS_MAX, Count, FeedId, JobId, Limit, Name, Priority, Text, Timestamp, Word


class FeedEvent(NamedTuple):
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


class FeedEvents(NamedTuple):
    """The last events, oldest first; `id` is that of the feed's last event, after which it continues."""

    id: FeedId
    events: Annotated[tuple[FeedEvent, ...], Limit(0, EVENTS_MAX)]


class Gap(NamedTuple):
    """Events that a reader has missed: all after `after` and before `first`, which is the next."""

    after: FeedId
    first: FeedId
