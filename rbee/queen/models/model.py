"""One model: its row in the catalog, and what is known of it in RAM only."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rbee.queen.store.models import ModelRow
from rbee.wire.models import EngineSays, ModelView

if TYPE_CHECKING:
    from rbee.wire.workers import Estimate, Kind


class Answer(NamedTuple):
    """What the engine of a model has answered about its file, with `context` tokens."""

    path: str
    context: int
    estimate: Estimate


class Model:
    """A model in the catalog."""

    def __init__(self, row: ModelRow) -> None:
        self.row = row
        self.progress: float | None = None
        """Percent of its file that has arrived; None if it is not being fetched, or its size is unknown."""
        self.answer: Answer | None = None
        """The last answer of its engine, asked since the queen started; None before, or if it has none."""
        self.is_removed = False

    def said(self, context: int, kind: Kind) -> EngineSays | None:
        """Return what its engine says that it needs with this context in this kind of pool, or None."""
        answer, row = self.answer, self.row
        if answer is None or (answer.path, answer.context) != (row.path, context):
            return None
        engine, estimate = answer.estimate.engine, answer.estimate
        count = estimate.ram_bytes if kind == "ram" else estimate.gpu_bytes
        if count is None or engine is None or row.engine not in (None, engine):
            return None
        return EngineSays(engine, count)

    @property
    def name(self) -> str:
        """Its name."""
        return self.row.name

    def view(self, learned_bytes: int | None) -> ModelView:
        """Return the model as clients see it."""
        row = self.row
        return ModelView(
            name=row.name,
            source=row.source,
            hive_id=row.hive_id,
            state=row.state,
            reason=row.reason,
            since_ms=row.since_ms,
            path=row.path,
            head=row.head,
            bytes=row.bytes,
            sha256=row.sha256,
            memory_bytes=row.memory_bytes,
            learned_bytes=learned_bytes,
            context=row.context,
            is_served=row.is_served,
            is_pinned=row.is_pinned,
            idle_s=row.idle_s,
            engine=row.engine,
            created_at_ms=row.created_at_ms,
            engine_says=self._shown(),
            progress=self.progress if row.state == "fetching" else None,
            problem=row.problem,
        )

    def _shown(self) -> EngineSays | None:
        """Return what its engine says for the context that it is served with: the most of all pools."""
        if self.answer is None or self.row.context not in (None, self.answer.context):
            return None
        kinds: tuple[Kind, ...] = ("ram", "gpu")
        says = [said for kind in kinds if (said := self.said(self.answer.context, kind)) is not None]
        return max(says, key=lambda one: one.bytes, default=None)
