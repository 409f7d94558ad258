"""Stops idle workers. There is one timer, for the worker that is due next; none without idle workers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

from rbee.queen.models.models import Models
from rbee.queen.serving.workers import KnownWorkers, Worker


class IdleTimer:
    """Calls `stop` with each worker that has had no lease for the idle_s of its model.

    One that runs otherwise than its model is served now is due without a lease, pinned or not. `is_lost` is
    whether the worker's hive is offline: then nobody can stop it.
    """

    def __init__(
        self,
        known: KnownWorkers,
        models: Models,
        stop: Callable[[Worker], None],
        is_lost: Callable[[Worker], bool],
    ) -> None:
        self._known = known
        self._models = models
        self._stop = stop
        self._is_lost = is_lost
        self._timer: asyncio.TimerHandle | None = None

    def look(self) -> None:
        """Stop those that are due, and wait for the next; called when a worker or a model has changed."""
        self.end()
        loop = asyncio.get_running_loop()
        next_due = None
        for worker, due in list(self._due()):
            if due <= loop.time():
                self._stop(worker)
            elif next_due is None or due < next_due:
                next_due = due
        if next_due is not None:
            # Slightly later than due, or the timer may fire a moment too early.
            self._timer = loop.call_at(next_due + 0.01, self.look)

    def end(self) -> None:
        """Stop the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> Iterator[tuple[Worker, float]]:
        """Yield the idle workers, and the loop's time at which each is to be stopped."""
        for worker in self._known.all():
            model = self._models.find(worker.seen.model)
            if not worker.is_ready or worker.leases or model is None or self._is_lost(worker):
                continue
            row, is_outdated = model.row, worker.is_outdated(model.row)
            if row.is_served and (is_outdated or not row.is_pinned):
                idle_s = 0 if is_outdated else row.idle_s
                yield worker, max(worker.last_used + idle_s, worker.keep_until, worker.settles_at)
