"""The parts of a hive that serve models: memory book, workers and fetches, each opened at its first use.

Most hives start without needing any of them, and do not import them.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rbee.hive.memory import api as memory_api
from rbee.hive.models import api as models_api
from rbee.hive.work import Prompt, Work
from rbee.hive.workers import api as workers_api
from rbee.narration import Narrator
from rbee.scope import Scope
from rbee.server.app import Handler
from rbee.wire.routes import Route

if TYPE_CHECKING:
    from rbee.hive.devices import Detector
    from rbee.hive.memory.book import Book
    from rbee.hive.models.fetches import Fetches
    from rbee.hive.units import SystemdUnits
    from rbee.hive.workers.estimates import Estimates
    from rbee.hive.workers.workers import Workers


class Serving:
    """Opens each part once, and closes those that were opened. `engine_journal` takes what engines print."""

    def __init__(
        self,
        scope: Scope,
        state: Path,
        detector: Detector,
        narrator: Narrator,
        work: Work,
        engine_journal: Narrator,
    ) -> None:
        self._scope = scope
        self._worker_folder = state / scope.worker_specifications.name
        self._estimate_folder = state / "estimate"
        self._detector = detector
        self._narrator = narrator
        self._work = work
        self._engine_journal = engine_journal
        self._book: Book | None = None
        self._units: SystemdUnits | None = None
        self._fetches: Fetches | None = None
        self._estimates: Estimates | None = None
        self._opening: asyncio.Task[Workers] | None = None

    def routes(self) -> Mapping[Route[Any], Handler]:
        """Return the handlers of all parts."""
        return {
            **memory_api.routes(self.book),
            **models_api.routes(self.fetches),
            **workers_api.routes(self.workers, self._scope, self.estimates),
        }

    async def take_up(self) -> None:
        """Open workers or fetches, if an earlier hive process has left some. Raises RbeeError."""
        if _has_entries(self._worker_folder) or _has_entries(self._scope.worker_runtime):
            await self.workers()
        if _has_entries(self._scope.fetch_requests) or models_api.has_parts(self._scope):
            self.fetches()

    def book(self) -> Book:
        """Return the memory book, opened at the first call."""
        if self._book is None:
            from rbee.hive.memory.book import Book

            self._book = Book(self._detector)
        return self._book

    def units(self) -> SystemdUnits:
        """Return the units of workers and fetches."""
        if self._units is None:
            from rbee.hive.units import SystemdUnits

            self._units = SystemdUnits(self._scope)
        return self._units

    def fetches(self) -> Fetches:
        """Return the fetches; the first call resumes those of an earlier hive process."""
        if self._fetches is None:
            from rbee.hive.models.fetches import Fetches

            units = self.units()
            self._fetches = Fetches(self._scope, units, units, Prompt(self._narrator, self._work))
            self._fetches.resume()
        return self._fetches

    def estimates(self) -> Estimates:
        """Return what asks engines what a model needs, and keeps their answers."""
        if self._estimates is None:
            from rbee.hive.workers.estimates import Estimates

            self._estimates = Estimates(
                self._scope,
                self._estimate_folder,
                self.units(),
                Prompt(self._narrator, self._work),
                self._detector,
            )
        return self._estimates

    def holdings(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return the names of the models that run here, and the ids of their workers; this opens nothing."""
        opening = self._opening
        if opening is None or not opening.done() or _has_failed(opening):
            return (), ()
        workers = opening.result().all().workers
        return tuple(sorted({one.model for one in workers})), tuple(one.id for one in workers)

    async def workers(self) -> Workers:
        """Return the workers; the first call adopts those that already run."""
        if self._opening is None or _has_failed(self._opening):
            self._opening = asyncio.ensure_future(self._open_workers())
        # Shielded: a client that disconnects cancels its request, but not the opening.
        return await asyncio.shield(self._opening)

    async def _open_workers(self) -> Workers:
        from rbee.hive.workers.workers import Workers

        return await Workers.open(
            self._scope,
            self._worker_folder,
            self.book(),
            self.units(),
            self._narrator,
            self._work,
            self._detector,
            self._engine_journal,
        )

    async def close(self) -> None:
        """Close what was opened; the units of workers and fetches continue."""
        opening, self._opening = self._opening, None
        if opening is not None:
            if opening.done() and not _has_failed(opening):
                await opening.result().close()
            opening.cancel()
            await asyncio.gather(opening, return_exceptions=True)
        if self._estimates is not None:
            await self._estimates.close()
        if self._fetches is not None:
            await self._fetches.close()
        if self._units is not None:
            self._units.close()
        if self._book is not None:
            await self._book.close()


def _has_failed(task: asyncio.Task[Workers]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


def _has_entries(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is not None
    except OSError:
        return False
