"""Asks hives for their workers when these may have changed."""

from __future__ import annotations

import logging
from collections.abc import Callable

from rbee.errors import RbeeError
from rbee.queen.hives.hives import Hives
from rbee.queen.serving.workers import KnownWorkers
from rbee.queen.tasks import Tasks

log = logging.getLogger("rbee")

TIMEOUT = 10.0
"""Seconds for a hive's answer; without one, the hive is asked again at its next beat."""


class Refresher:
    """Asks a hive one thing at a time; `refreshed` is called with its id after each answer."""

    def __init__(
        self, hives: Hives, known: KnownWorkers, tasks: Tasks, refreshed: Callable[[str], None]
    ) -> None:
        self._hives = hives
        self._known = known
        self._tasks = tasks
        self._refreshed = refreshed

    def begin(self, hive_id: str) -> None:
        """Ask a hive soon, unless a request to it is waiting already."""
        hive = self._hives.find(hive_id)
        if hive is not None and not hive.workload.is_due:
            hive.workload.is_due = True
            self._tasks.begin(self.refresh(hive_id))

    async def refresh(self, hive_id: str) -> None:
        """Ask a hive for its workers. A failure is logged."""
        hive = self._hives.find(hive_id)
        if hive is None:
            return
        workload = hive.workload
        async with workload.lock:
            workload.is_due = False
            if hive.is_removed:
                return
            work, number = workload.heard, self._known.asking()
            try:
                client = await hive.reach()
                answer = await client.workers(timeout=TIMEOUT)
            except RbeeError as error:
                if workload.failure != error.message:
                    workload.failure = error.message
                    log.warning("the workers of hive %s are not known: %s", hive_id, error.message)
                return
            if hive.is_removed:
                return  # its workers are forgotten already
            workload.failure = None
            workload.came_with(work)
            self._known.take_all(hive_id, answer.workers, number)
        self._refreshed(hive_id)
