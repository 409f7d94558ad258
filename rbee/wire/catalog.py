"""The state of the catalog's file, and the audit of its changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from rbee.wire.types import Count, JobId, Limit, Name, Text


@dataclass(frozen=True)
class CatalogReport:
    """A catalog that is sound: its file, the version of its table, and the size with its log."""

    path: Text
    version: Count
    hives: Count
    size_bytes: Count


AUDIT_MAX = 1000
"""Entries of the audit that are told at once."""


@dataclass(frozen=True)
class AuditEntry:
    """A change of catalog, token or label, and who made it: `actor_uid` on the queen's machine, or the
    hive of that credential. `problem` says what of the entry could not be read."""

    id: Count
    at_ms: Count
    text: Text
    hive: Name | None
    actor_uid: Count | None
    actor_credential: Text | None
    job_id: JobId | None
    problem: Text | None = None


@dataclass(frozen=True)
class Audit:
    """Newest last."""

    entries: Annotated[tuple[AuditEntry, ...], Limit(0, AUDIT_MAX)]
