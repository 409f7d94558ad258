"""Background tasks of the queen."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger("rbee")


class Tasks:
    """Tasks that nobody awaits: a failure is logged, and end() cancels those that still run."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_closed = False

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Start it, unless closed: requests that are served while stopping start no new work."""
        if self.is_closed:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def close(self) -> None:
        """Start no more tasks."""
        self.is_closed = True

    async def end(self) -> None:
        """Cancel the tasks that run, and await their end."""
        self.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of the queen failed", exc_info=task.exception())
