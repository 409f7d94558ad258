"""One model: its row in the catalog, and what is known of it in RAM only."""

from __future__ import annotations

from rbee.queen.store.models import ModelRow
from rbee.wire.models import ModelView


class Model:
    """A model in the catalog."""

    def __init__(self, row: ModelRow) -> None:
        self.row = row
        self.progress: float | None = None
        """Percent of its file that has arrived; None if it is not being fetched, or its size is unknown."""
        self.is_removed = False

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
            progress=self.progress if row.state == "fetching" else None,
            problem=row.problem,
        )
