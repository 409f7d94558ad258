"""The keys in the catalog, with which clients use the gateway: their hashes, never their texts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

from rbee.errors import NameTaken, TooMany, UnknownKey
from rbee.queen.store.engine import Engine, Session
from rbee.queen.store.records import Actor
from rbee.queen.store.writer import Transaction, Writer
from rbee.scope import Scope
from rbee.wire.keys import KEYS_MAX
from rbee.wire.rows import read_row
from rbee.wire.types import Count, Limit, ModelName, Name, Sha256, Text

_COLUMNS = "name, hash, models, created_at_ms, expires_at_ms, is_revoked, uses, last_used_ms"

_ALL = f"SELECT {_COLUMNS} FROM keys ORDER BY name"  # noqa: S608  # texts of our own
_ONE = f"SELECT {_COLUMNS} FROM keys WHERE name = :name"  # noqa: S608  # as above


class KeyRow(NamedTuple):
    """A row of the table keys. `hash` is the SHA-256 of its text; it is for all models if `models` is empty.

    Times are milliseconds since the epoch. `problem` is what could not be read of it: then it is not valid.
    """

    name: Name
    hash: Sha256
    models: Annotated[tuple[ModelName, ...], Limit(0, 64)]
    created_at_ms: Count
    expires_at_ms: Count | None
    is_revoked: bool
    uses: Count
    last_used_ms: Count | None
    problem: Text | None = None

    def why_useless(self, now: int) -> str | None:
        """Return why it cannot be used at `now` (ms since the epoch) or later; None if it can."""
        if self.is_revoked:
            return "is revoked"
        if self.problem is not None:
            # Its models, or when it expires, may be what could not be read.
            return f"cannot be read in the catalog ({self.problem})"
        return "has expired" if self.expires_at_ms is not None and self.expires_at_ms <= now else None

    def is_for(self, model: str) -> bool:
        """May a client with it use this model?"""
        return not self.models or model in self.models


class Use(NamedTuple):
    """How often a key was used in all, when last (ms since the epoch), and the audit's entry that is due."""

    uses: int
    last_used_ms: int
    text: str | None = None


class KeyStore:
    """Reads and writes keys."""

    def __init__(self, engine: Engine, writer: Writer, scope: Scope) -> None:
        self._engine = engine
        self._writer = writer
        self._scope = scope

    async def all(self) -> list[KeyRow]:
        """Return all kept keys, ordered by name."""
        return await self._engine.read_all(lambda session: _keys(session, _ALL))

    async def add(self, row: KeyRow, *, by: Actor) -> list[str]:
        """Store a new key, and return the names of those that made room for it.

        The name of a key that cannot be used any more is free. Raises NameTaken, or TooMany if KEYS_MAX
        others can still be used.
        """

        def write(transaction: Transaction) -> list[str]:
            session = transaction.session
            for former in _keys(session, _ONE, name=row.name):
                if former.why_useless(transaction.now_ms) is None:
                    hint = self._scope.rbeectl(f"key revoke {row.name}")
                    raise NameTaken(f"there is a key {row.name} already", hint=hint, field="name")
                _delete(session, row.name)
            dropped = _make_room(session, transaction.now_ms, self._scope)
            session.execute(
                f"INSERT INTO keys ({_COLUMNS}) VALUES (:name, :hash, :models, :created_at_ms, "  # noqa: S608  # names of our own
                ":expires_at_ms, 0, 0, NULL)",
                name=row.name,
                hash=row.hash,
                models=json.dumps(row.models),
                created_at_ms=row.created_at_ms,
                expires_at_ms=row.expires_at_ms,
            )
            models = f"the models {', '.join(row.models)}" if row.models else "all models"
            transaction.note(None, f"key {row.name} was made, for {models}", by)
            return dropped

        return await self._writer.write(write)

    async def revoke(self, name: str, *, by: Actor) -> KeyRow:
        """Revoke a key and return it, even if it was revoked before. Raises UnknownKey."""

        def write(transaction: Transaction) -> KeyRow:
            session = transaction.session
            if session.execute(
                "UPDATE keys SET is_revoked = 1 WHERE name = :name AND is_revoked = 0", name=name
            ):
                transaction.note(None, f"key {name} is revoked", by)
            for row in _keys(session, _ONE, name=name):
                return row
            raise unknown(name, self._scope)

        return await self._writer.write(write)

    async def note_uses(self, uses: Mapping[str, Use]) -> None:
        """Store how keys were used, by their names; each `text` becomes an entry of the audit."""

        def write(transaction: Transaction) -> None:
            for name, use in uses.items():
                changed = transaction.session.execute(
                    "UPDATE keys SET uses = :uses, last_used_ms = :last WHERE name = :name",
                    name=name,
                    uses=use.uses,
                    last=use.last_used_ms,
                )
                if changed and use.text is not None:
                    transaction.note(None, use.text, None)

        await self._writer.write(write)


def unknown(name: str, scope: Scope) -> UnknownKey:
    """Return the error for a key that is not kept."""
    return UnknownKey(f"there is no key {name}", hint=scope.rbeectl("key list"), field="key")


def _make_room(session: Session, now: int, scope: Scope) -> list[str]:
    """Delete the oldest unusable keys to make room for one more; TooMany if those are too few.

    Return their names as stored, also of those whose names cannot be read.
    """
    rows = session.rows(_ALL)
    keys = sorted(((_key(row), row[0]) for row in rows), key=lambda one: one[0].created_at_ms)
    excess = len(keys) + 1 - KEYS_MAX
    if excess <= 0:
        return []
    useless = [stored for key, stored in keys if key.why_useless(now) is not None][:excess]
    if len(useless) < excess:
        hint = scope.rbeectl("key revoke NAME")
        raise TooMany(f"there are {len(keys)} keys, the limit", hint=hint)
    for name in useless:
        _delete(session, name)
    return useless


def _delete(session: Session, name: str) -> None:
    session.execute("DELETE FROM keys WHERE name = :name", name=name)


def _keys(session: Session, query: str, **values: str) -> list[KeyRow]:
    return [_key(row) for row in session.rows(query, **values)]


def _key(row: tuple[Any, ...]) -> KeyRow:
    key = dict(zip(_COLUMNS.split(", "), row, strict=True))
    key["is_revoked"] = bool(key["is_revoked"])
    key["models"] = _models(key["models"])
    return read_row(KeyRow, key)


def _models(stored: str) -> Any:
    """Return a key's models as a shape has them; what is not JSON is returned for read_row() to refuse."""
    try:
        models: Any = json.loads(stored)
    except ValueError:
        return stored
    return models
