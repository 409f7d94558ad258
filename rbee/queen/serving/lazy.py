"""Serving, built at its first use: a queen without models neither imports it nor pays for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING

from rbee.narration import Narrator
from rbee.queen.hives.hives import Hives
from rbee.queen.models.models import Models

if TYPE_CHECKING:
    from rbee.errors import RbeeError
    from rbee.queen.serving.parts import Parts
    from rbee.queen.serving.serving import Serving
    from rbee.wire.workers import WorkerView


class LazyServing:
    """What the queen's other parts need of Serving; most methods do nothing until that is built."""

    def __init__(self, parts: Callable[[], Parts], hives: Hives, models: Models) -> None:
        self._parts = parts
        self._hives = hives
        self._models = models
        self._is_ended = False

    @cached_property
    def serving(self) -> Serving:
        """Serving itself; used by requests, and once a hive reports that it has workers."""
        from rbee.queen.serving.serving import Serving

        return Serving(self._parts())

    @property
    def _built(self) -> Serving | None:
        return vars(self).get("serving")

    def work_changed(self, hive_id: str) -> bool:
        """Have a hive asked for its workers; return False if nothing here needs them."""
        hive = self._hives.find(hive_id)
        if self._is_ended or hive is None or (self._built is None and hive.workload.heard is None):
            return False
        self.serving.work_changed(hive_id)
        return True

    def hives_changed(self) -> None:
        """Wake what waits for a hive."""
        if self._built is not None:
            self._built.known.changes.announce()

    def hive_removed(self, hive_id: str) -> None:
        """Forget the workers of a hive that was removed."""
        if self._built is not None:
            self._built.known.forget_hive(hive_id)

    def model_served(self, name: str) -> None:
        """Note that an operator has served a model, or changed how it is served."""
        if not self._is_ended:
            self.serving.served_anew(name)

    def model_replaced(self, name: str) -> None:
        """Note that a model has another file now."""
        if self._built is not None:
            self._built.known.model_replaced(name)

    def holdings(self, hive_id: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the names of the models on a hive, and the ids of its workers."""
        models = tuple(model.name for model in self._models.all() if model.row.hive_id == hive_id)
        return models, () if self._built is None else self._built.worker_ids(hive_id)

    def views(self) -> tuple[WorkerView, ...]:
        """Return the workers for a scrape of the metrics; () if none are known."""
        return () if self._built is None else self._built.views().workers

    def model_states(self) -> list[str]:
        """Return the state of each model, for a scrape of the metrics."""
        return [model.row.state for model in self._models.all()]

    async def stop_model(self, name: str, story: Narrator, why: RbeeError) -> None:
        """Stop all workers of a model that is removed; its requests end with the error `why`.

        Raises RbeeError if one may still run.
        """
        await self.serving.stop_model(name, story, why)

    def cut(self, story: Narrator) -> None:
        """Cut all leases: rbee is being shut down."""
        if self._built is not None:
            self._built.cut(story)

    async def end(self) -> None:
        """End Serving; the workers and their requests stay as they are."""
        self._is_ended = True
        if self._built is not None:
            await self._built.end()
