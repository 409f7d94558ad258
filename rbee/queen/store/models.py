"""The models in the catalog, how they are served, and how much memory their workers have used."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from rbee.errors import TEXT_LIMIT, BadInput, TooMany, UnknownModel
from rbee.queen.store.engine import Engine, Session, Value
from rbee.queen.store.records import Actor
from rbee.queen.store.writer import Transaction, Writer
from rbee.scope import Scope
from rbee.wire.codec import decode, encode
from rbee.wire.models import MODELS_MAX, Context, Head, ModelState, Path
from rbee.wire.rows import read_row
from rbee.wire.types import Count, Name, Sha256, Text, Word

IDLE_S = 300
"""Seconds without a request after which a worker is stopped, unless the model says otherwise."""

LEARNED_MAX = 64
"""Peaks kept of one model, each for a context, a kind of device and an engine; the smallest make room."""

COLUMNS = (
    "name, hive_id, source, fetch, state, reason, since_ms, path, head, bytes, sha256, memory_bytes, "
    "context, is_served, is_pinned, idle_s, engine, created_at_ms"
)

_ALL = f"SELECT {COLUMNS} FROM models ORDER BY name"  # noqa: S608  # texts of our own
_ONE = f"SELECT {COLUMNS} FROM models WHERE name = :name"  # noqa: S608  # as above


class ModelRow(NamedTuple):
    """A row of the table models. Times are milliseconds since the epoch.

    `source` is the path, or the URL without its secrets, and `fetch` the id of its fetch, None for a
    model that is used in place. `path`, `head`, `bytes` and `sha256` are known once it is ready. `problem` is
    what could not be read of the row; those fields have blank values.
    """

    name: Name
    hive_id: Name
    source: Text
    fetch: Word | None
    state: ModelState
    reason: Text
    since_ms: Count
    path: Path | None
    head: Head | None
    bytes: Count | None
    sha256: Sha256 | None
    memory_bytes: Count | None
    context: Context | None
    is_served: bool
    is_pinned: bool
    idle_s: Count
    engine: Word | None
    created_at_ms: Count
    problem: Text | None = None

    @property
    def has_arrived(self) -> bool:
        """Is its file known, whether or not it is still there?"""
        return self.state in ("ready", "missing")

    def has_file_of(self, other: ModelRow) -> bool:
        """Is its file the same as that of another row, as far as is known? Then what was learned holds."""
        mine, theirs = ((row.path, row.head, row.bytes, row.sha256) for row in (self, other))
        return mine == theirs


Again = Callable[[ModelRow], ModelRow]
"""Returns the row of a model that is added again, for its row at that moment. Runs in the writer's thread."""


class Learned(NamedTuple):
    """The most memory that workers of a model have used, with `context` tokens on a `kind` of device."""

    model: str
    context: int
    kind: str
    engine: str
    peak_bytes: int


class ModelStore:
    """Reads and writes models. `by` is who requested a write, for the audit."""

    def __init__(self, engine: Engine, writer: Writer, scope: Scope) -> None:
        self._engine = engine
        self._writer = writer
        self._scope = scope

    async def all(self) -> list[ModelRow]:
        """Return all models, ordered by name."""
        return await self._engine.read_all(lambda session: [read_model(row) for row in session.rows(_ALL)])

    async def learned(self) -> list[Learned]:
        """Return what was learned of all models."""
        query = "SELECT model, context, kind, engine, peak_bytes FROM peaks"
        rows = await self._engine.read_all(lambda session: session.rows(query))
        return [Learned(*row) for row in rows]

    async def find(self, name: str) -> ModelRow | None:
        """Return the model of this name, or None."""
        return await self._engine.read(lambda session: _find(session, name))

    async def put(self, row: ModelRow, *, again: Again | None = None, by: Actor | None) -> ModelRow:
        """Write a model, replacing one of the same name; return its row.

        If there is one, the row that `again` returns for it is written instead of `row`: other changes may
        have come in between. If it had another file, what was learned of that is dropped. Raises TooMany if
        there are MODELS_MAX others.
        """

        def write(transaction: Transaction) -> ModelRow:
            session = transaction.session
            before = _find(session, row.name)
            written = row if before is None or again is None else again(before)
            if written == before:
                return before
            is_new = session.execute("DELETE FROM models WHERE name = :name", name=row.name) == 0
            ((count,),) = session.rows("SELECT count(*) FROM models")
            if count >= MODELS_MAX:
                hint = self._scope.rbeectl("model remove NAME")
                raise TooMany(f"the model catalog has {count} models, the limit", hint=hint)
            values = ", ".join(f":{name}" for name in COLUMNS.split(", "))
            session.execute(f"INSERT INTO models ({COLUMNS}) VALUES ({values})", **_stored(written._asdict()))  # noqa: S608  # names of our own
            if before is not None and not written.has_file_of(before):
                _unlearn(session, row.name)
            if is_new:
                text = f"model {row.name} ({row.source}) is in the model catalog, on hive {row.hive_id}"
                transaction.note(row.hive_id, text, by)
            else:
                text = f"model {row.name} is added again from {row.source}, on hive {row.hive_id}"
                transaction.note(row.hive_id, text, by)
            return _there(session, row.name)

        return await self._writer.write(write)

    async def set_state(
        self, name: str, state: ModelState, reason: str, *, by: Actor | None = None, **fields: Any
    ) -> ModelRow | None:
        """Store state and reason, and `fields` (path, head, bytes, sha256); None if it was removed.

        What was learned of another file is dropped.
        """
        text = f"model {name} is {state} in the model catalog" + (f": {reason}" if reason else "")
        reason = reason[:TEXT_LIMIT]
        # Changes that no operator requested would displace those of operators in the audit.
        return await self._set(
            name, {"state": state, "reason": reason, **fields}, text, by, is_audited=by is not None
        )

    async def set(self, name: str, text: str, *, by: Actor | None, **fields: Any) -> ModelRow:
        """Store how a model is served; `text` describes it in the audit. Raises UnknownModel."""
        row = await self._set(name, fields, text, by)
        if row is None:
            raise unknown(name, self._scope)
        return row

    async def remove(self, name: str, *, by: Actor | None) -> bool:
        """Remove a model and what was learned of it; return whether it existed."""

        def write(transaction: Transaction) -> bool:
            row = _find(transaction.session, name)
            _unlearn(transaction.session, name)
            if not transaction.session.execute("DELETE FROM models WHERE name = :name", name=name):
                return False
            hive_id = None if row is None else row.hive_id
            transaction.note(hive_id, f"model {name} is removed from the model catalog", by)
            return True

        return await self._writer.write(write)

    async def learn(self, learned: Learned, row: ModelRow) -> None:
        """Store how much memory a worker has used, if that is more than before.

        Nothing is stored if the model is gone, or has another file than that of `row` by now.
        """

        def write(transaction: Transaction) -> None:
            session = transaction.session
            there = _find(session, learned.model)
            if there is None or not there.has_file_of(row):
                return
            which = "model = :model AND context = :context AND kind = :kind AND engine = :engine"
            key: dict[str, Value] = learned._asdict()
            peak = key.pop("peak_bytes")
            # Texts of our own.
            former = session.rows(f"SELECT peak_bytes FROM peaks WHERE {which}", **key)  # noqa: S608
            if former and former[0][0] >= learned.peak_bytes:
                return
            session.execute(f"DELETE FROM peaks WHERE {which}", **key)  # noqa: S608
            insert = "INSERT INTO peaks VALUES (:model, :context, :kind, :engine, :peak)"
            session.execute(insert, **key, peak=peak)
            _make_room(session, learned.model)

        await self._writer.write(write)

    async def _set(
        self, name: str, fields: Mapping[str, Any], text: str, by: Actor | None, *, is_audited: bool = True
    ) -> ModelRow | None:
        """Set fields of a model and note the change if one differs; None if there is no such model."""

        def write(transaction: Transaction) -> ModelRow | None:
            session, values = transaction.session, _stored(fields)
            # Compared as stored: the blank for an unreadable value could be equal by chance.
            rows = session.rows(f"SELECT {', '.join(values)} FROM models WHERE name = :name", name=name)  # noqa: S608  # names of our own
            if not rows:
                return None
            if rows[0] != tuple(values.values()):
                before = _there(session, name)
                if "state" in values:
                    values["since_ms"] = transaction.now_ms
                columns = ", ".join(f"{column} = :{column}" for column in values)
                session.execute(f"UPDATE models SET {columns} WHERE name = :name", name=name, **values)  # noqa: S608  # as above
                if not _there(session, name).has_file_of(before):
                    _unlearn(session, name)
                transaction.note(before.hive_id, text, by, is_audited=is_audited)
            return _there(session, name)

        return await self._writer.write(write)


def unknown(name: str, scope: Scope) -> UnknownModel:
    """Return the error for a model that is not in the catalog."""
    return UnknownModel(
        f"model '{name}' is not in the model catalog",
        hint=f"{scope.rbeectl('model list')} shows those that are",
        field="model",
    )


def read_model(row: tuple[Any, ...]) -> ModelRow:
    """Return the ModelRow for values in the order of COLUMNS; `problem` names what cannot be read."""
    columns = dict(zip(COLUMNS.split(", "), row, strict=True))
    head, problem = _head(columns["head"])
    columns["head"] = None
    for name in ("is_served", "is_pinned"):
        columns[name] = bool(columns[name])
    stored = read_row(ModelRow, columns)
    faults = "; ".join(filter(None, [stored.problem, problem]))[:TEXT_LIMIT]
    return stored._replace(head=head, problem=faults or None)


def _head(stored: str | None) -> tuple[Head | None, str | None]:
    """Return the head, or what is wrong with it: then the need for memory is guessed."""
    if stored is None:
        return None, None
    try:
        return decode(Head, json.loads(stored), "head"), None
    except ValueError:
        return None, "head must be JSON"
    except BadInput as error:
        return None, error.message


def _stored(fields: Mapping[str, Any]) -> dict[str, Value]:
    """Return fields of a row as the values of their columns."""
    return {name: _column(value) for name, value in fields.items() if name != "problem"}


def _column(value: Any) -> Value:
    if isinstance(value, Head):
        return json.dumps(encode(value), ensure_ascii=False)
    if isinstance(value, bool):
        return int(value)
    assert value is None or isinstance(value, str | int)
    return value


def _find(session: Session, name: str) -> ModelRow | None:
    return next((read_model(row) for row in session.rows(_ONE, name=name)), None)


def _there(session: Session, name: str) -> ModelRow:
    row = _find(session, name)
    assert row is not None
    return row


def _unlearn(session: Session, model: str) -> None:
    session.execute("DELETE FROM peaks WHERE model = :model", model=model)


def _make_room(session: Session, model: str) -> None:
    """Drop the smallest peaks of a model beyond LEARNED_MAX."""
    query = (
        "SELECT context, kind, engine FROM peaks WHERE model = :model "
        "ORDER BY peak_bytes DESC, context, kind, engine LIMIT 1000 OFFSET :kept"
    )
    for context, kind, engine in session.rows(query, model=model, kept=LEARNED_MAX):
        session.execute(
            "DELETE FROM peaks "
            "WHERE model = :model AND context = :context AND kind = :kind AND engine = :engine",
            model=model, context=context, kind=kind, engine=engine,
        )  # fmt: skip
