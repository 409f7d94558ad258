"""All models of the queen, kept in RAM as they are in the catalog: no request reads the disk."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from rbee.queen.models.model import Model
from rbee.queen.store.models import LEARNED_MAX, Again, Learned, ModelRow, unknown
from rbee.queen.store.records import Actor, free_name
from rbee.queen.store.store import Store
from rbee.scope import Scope
from rbee.text import shown_span
from rbee.wire.models import ModelState, ModelView, Serve


class Models:
    """The models in the catalog, by name. Each write is on the disk before it is seen here."""

    def __init__(self, catalog: Store, scope: Scope) -> None:
        self._catalog = catalog
        self._scope = scope
        self._models: dict[str, Model] = {}
        self._learned: defaultdict[str, dict[tuple[int, str, str], int]] = defaultdict(dict)
        """Peaks in bytes, by model, and by context, kind of device and engine."""
        self.when_served: Callable[[str], None] = lambda name: None
        """Called with the name of a model after an operator has served it, or changed how it is served."""
        self.when_replaced: Callable[[str], None] = lambda name: None
        """Called with the name of a model that has another file now."""

    async def load(self) -> None:
        """Load the models from the catalog."""
        rows = await self._catalog.models.all()
        for row in sorted(rows, key=lambda row: row.problem is not None):  # readable names first
            name = free_name(row.name, self._models)
            self._models[name] = Model(row._replace(name=name))
        for one in await self._catalog.models.learned():
            self._learned[one.model][one.context, one.kind, one.engine] = one.peak_bytes

    # What there is

    def all(self) -> list[Model]:
        """Return the models, by name."""
        return [model for _, model in sorted(self._models.items())]

    def find(self, name: str) -> Model | None:
        """Return the model of this name, or None."""
        return self._models.get(name)

    def model(self, name: str) -> Model:
        """As find(); raises UnknownModel."""
        model = self._models.get(name)
        if model is None:
            raise unknown(name, self._scope)
        return model

    def view(self, model: Model) -> ModelView:
        """Return a model as clients see it."""
        context, chosen = model.row.context, model.row.engine
        learned = self._learned.get(model.name, {}).items()
        peaks = [
            peak
            for (tokens, _, engine), peak in learned
            if context in (None, tokens) and chosen in (None, engine)
        ]
        return model.view(max(peaks, default=None))

    def with_file(self, model: Model) -> list[Model]:
        """Return the other models on its hive that use the file fetched for it, or share its fetch."""
        row = model.row

        def has_it(other: ModelRow) -> bool:
            if other.hive_id != row.hive_id:
                return False
            if not row.has_arrived:
                return other.fetch == row.fetch is not None
            is_of_store = other.fetch is not None and other.sha256 == row.sha256 is not None
            return is_of_store or other.path == row.path is not None

        return [other for other in self._models.values() if other is not model and has_it(other.row)]

    def have_file(self, sha256: str, besides: Model) -> bool:
        """Does another model on the hive of `besides` use this file of the store?"""
        return any(
            other.row.fetch is not None and other.row.sha256 == sha256
            for other in self._models.values()
            if other is not besides and other.row.hive_id == besides.row.hive_id
        )

    # Changes

    async def put(self, row: ModelRow, by: Actor | None, *, again: Again | None = None) -> Model:
        """Write a model, replacing one of the same name, by `again` as in ModelStore.put().

        Raises TooMany or CatalogFailed.
        """
        stored = await self._catalog.models.put(row, again=again, by=by)
        model = self._models.setdefault(row.name, Model(stored))
        self._take(model, stored)
        return model

    async def set_state(
        self,
        model: Model,
        state: ModelState,
        reason: str = "",
        *,
        by: Actor | None = None,
        fields: Mapping[str, Any] | None = None,
    ) -> None:
        """Store a state and its reason, with other `fields` of the row: path, head, bytes, sha256.

        Raises CatalogFailed.
        """
        row = await self._catalog.models.set_state(model.name, state, reason, by=by, **(fields or {}))
        self._take(model, row or model.row)

    def _take(self, model: Model, row: ModelRow) -> None:
        """Take a row that was written; the catalog has dropped what was learned of another file."""
        is_replaced = not row.has_file_of(model.row)
        model.row = row
        if is_replaced:
            self._learned.pop(model.name, None)
            self.when_replaced(model.name)

    async def serve(self, name: str, asked: Serve, by: Actor) -> ModelView:
        """Serve a model: requests wake it. None in `asked` keeps a setting, 0 or '' takes it back.

        Raises UnknownModel or CatalogFailed.
        """
        model = self.model(name)
        given = {field: value for field, value in asked._asdict().items() if value is not None}
        given |= {field: given[field] or None for field in ("context", "engine") if field in given}
        how = "".join(f", {text}" for text in _described(asked))
        text = f"model {name} is served{how}"
        model.row = await self._catalog.models.set(name, text, by=by, is_served=True, **given)
        self.when_served(name)
        return self.view(model)

    async def unserve(self, name: str, by: Actor) -> Model | None:
        """Stop serving a model: requests do not wake it. Return it, or None if it does not exist."""
        model = self._models.get(name)
        if model is not None:
            text = f"model {name} is not served any more"
            model.row = await self._catalog.models.set(name, text, by=by, is_served=False)
        return model

    async def remove(self, model: Model, by: Actor) -> None:
        """Remove a model and what was learned of it."""
        await self._catalog.models.remove(model.name, by=by)
        model.is_removed = True
        if self._models.get(model.name) is model:
            del self._models[model.name]
        self._learned.pop(model.name, None)

    # What was learned

    def peaks(self, name: str, context: int, kind: str) -> dict[str, int]:
        """Return the most bytes that workers with this context on this kind of device used, by engine."""
        learned = self._learned.get(name, {}).items()
        return {engine: peak for (*key, engine), peak in learned if key == [context, kind]}

    def learned(self, name: str, context: int, kind: str, engine: str | None = None) -> int | None:
        """As peaks(), of one engine, or the most of all; None if there is none."""
        peaks = self.peaks(name, context, kind)
        return max(peaks.values(), default=None) if engine is None else peaks.get(engine)

    async def learn(self, learned: Learned) -> None:
        """Store what a worker has used, if that is more than before. Raises CatalogFailed."""
        name, context, kind, engine, peak_bytes = learned
        if name not in self._models or peak_bytes <= (self.learned(name, context, kind, engine) or 0):
            return
        row = self._models[name].row
        await self._catalog.models.learn(learned, row)
        if name not in self._models or not row.has_file_of(self._models[name].row):
            return
        peaks = self._learned[name]
        peaks[context, kind, engine] = peak_bytes
        if len(peaks) > LEARNED_MAX:  # as in the catalog
            del peaks[min(peaks, key=lambda key: peaks[key])]


def _described(asked: Serve) -> list[str]:
    """Return how a model is to be served, as the audit has it."""
    pinned = {None: None, True: "pinned", False: "not pinned"}[asked.is_pinned]
    texts = [
        asked.context and f"with a context of {asked.context} tokens",
        "with the default context" if asked.context == 0 else None,
        asked.idle_s and f"stopped after {shown_span(asked.idle_s)} without a request",
        pinned,
        asked.engine and f"by the engine {asked.engine}",
        "by any engine" if asked.engine == "" else None,
    ]
    return [text for text in texts if text]
