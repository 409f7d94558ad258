"""What a person asks of the journal, over the socket queen-rbee-logs.socket."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from rbee.wire.types import Count, JobId, Limit, ModelName, Name, Text, WorkerId


class LogQuery(NamedTuple):
    """Which entries to show: those of queen and hives, or of one hive, model, worker or job, or of a hive in
    a job.

    `options` are journalctl's. `fields`, such as RBEE_EVENT=NAME, are what the entries must have.
    `has_colour` is whether what they are written to can show colours.
    """

    hive: Name | None = None
    model: ModelName | None = None
    worker: WorkerId | None = None
    job: JobId | None = None
    options: Annotated[tuple[Text, ...], Limit(0, 32)] = ()
    has_colour: bool = False
    fields: Annotated[tuple[Text, ...], Limit(0, 8)] = ()


class LogEnd(NamedTuple):
    """journalctl has ended with this exit status; one that a signal ended has 128 and its number."""

    status: Count
