"""The state of the catalog's file, and the audit of its changes."""

from __future__ import annotations

from typing import Annotated, NamedTuple

from rbee.wire.types import AUDIT_MAX, Count, JobId, Limit, Name, Text


class CatalogReport(NamedTuple):
    """A catalog that is sound: its file, the version of its schema, its hives, and its size with the log."""

    path: Text
    version: Count
    hives: Count
    size_bytes: Count


class AuditEntry(NamedTuple):
    """A change of the catalog and who made it: the user `actor_uid` on the queen's machine, or the hive with
    that credential. `problem` is what could not be read of the entry."""

    id: Count
    at_ms: Count
    text: Text
    hive: Name | None
    actor_uid: Count | None
    actor_credential: Text | None
    job_id: JobId | None
    problem: Text | None = None


class Audit(NamedTuple):
    """Entries of the audit, newest last."""

    entries: Annotated[tuple[AuditEntry, ...], Limit(0, AUDIT_MAX)]
