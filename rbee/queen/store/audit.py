"""The audit: who changed what. An entry is written in the same transaction as the change."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from rbee.errors import TEXT_LIMIT
from rbee.queen.store.engine import Engine, Session
from rbee.queen.store.records import Change
from rbee.wire.catalog import AuditEntry
from rbee.wire.rows import read_row

AUDIT_KEPT = 10_000
"""Entries about operators' changes that are kept; only newer ones of operators replace them."""

AUDIT_KEPT_MACHINES = 10_000
"""The same for changes by hives and by the queen itself."""

AUDIT_KEPT_A_HIVE = 200
"""The share of one hive in those, so that it does not displace the others'."""

_COLUMNS = "id, at_ms, text, hive, actor_uid, actor_credential, job_id"


class AuditStore:
    """Reads the entries of the audit; the writer enters them."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def last(self, limit: int, hive_id: str | None) -> list[AuditEntry]:
        """Return the last `limit` entries, newest last: of one hive (case is ignored), or of all."""
        of_one = "" if hive_id is None else "WHERE lower(hive) = lower(:hive)"
        query = f"SELECT {_COLUMNS} FROM audit {of_one} ORDER BY id DESC LIMIT :limit"  # noqa: S608  # texts of our own
        rows = await self._engine.read_all(lambda session: session.rows(query, hive=hive_id, limit=limit))
        return [_entry(row) for row in reversed(rows)]


def enter(session: Session, change: Change, *, at_ms: int, daemons: Collection[int]) -> None:
    """Write an entry and drop the oldest of its kind; uids in `daemons` count as machines without a job."""
    actor = change.actor()
    uid = int(actor["actor_uid"]) if "actor_uid" in actor else None
    session.execute(
        """
        INSERT INTO audit (at_ms, text, hive, actor_uid, actor_credential, job_id)
        VALUES (:at_ms, :text, :hive, :uid, :credential, :job_id)
        """,
        at_ms=at_ms,
        text=change.text[:TEXT_LIMIT],  # the journal has all of it
        hive=change.hive_id,
        uid=uid,
        credential=actor.get("actor_credential"),
        job_id=actor.get("job_id"),
    )
    if uid is None or ("job_id" not in actor and uid in daemons):
        _make_room(session, _by_machines(daemons), AUDIT_KEPT_MACHINES)
        if change.hive_id is not None:
            _make_room(
                session, f"hive = :hive AND {_by_machines(daemons)}", AUDIT_KEPT_A_HIVE, change.hive_id
            )
    else:
        _make_room(session, f"NOT {_by_machines(daemons)}", AUDIT_KEPT)


def _by_machines(daemons: Collection[int]) -> str:
    """Return the SQL condition for an entry by no user, or by a daemon without a job."""
    uids = ", ".join(str(int(uid)) for uid in daemons)
    of_daemons = f" OR (job_id IS NULL AND actor_uid IN ({uids}))" if uids else ""
    return f"(actor_uid IS NULL{of_daemons})"


def _make_room(session: Session, sort: str, kept: int, hive_id: str | None = None) -> None:
    """Drop the oldest entries of a kind (an SQL condition) beyond `kept`."""
    about = {} if hive_id is None else {"hive": hive_id}
    # Conditions of our own, with nothing but numbers in them.
    oldest = f"SELECT id FROM audit WHERE {sort} ORDER BY id DESC LIMIT 1 OFFSET :kept"  # noqa: S608
    for (entry_id,) in session.rows(oldest, kept=kept, **about):
        session.execute(f"DELETE FROM audit WHERE {sort} AND id <= :id", id=entry_id, **about)  # noqa: S608


def _entry(row: tuple[Any, ...]) -> AuditEntry:
    entry = dict(zip(_COLUMNS.split(", "), row, strict=True))
    # 0.4.0 read a uid as a signed number, and stored those from 2**31 on as negative.
    if entry["actor_uid"] is not None and -(2**31) <= entry["actor_uid"] < 0:
        entry["actor_uid"] += 2**32
    return read_row(AuditEntry, entry)
