"""Work of the queen's that nobody awaits."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger("rbee")


class Tasks:
    """What is begun here is cancelled at the queen's end; one that fails is logged."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self.is_closed = False

    def begin(self, work: Coroutine[Any, Any, None]) -> None:
        """Start it, unless closed: requests are served a moment longer, and begin nothing more."""
        if self.is_closed:
            work.close()
            return
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._reap)

    def close(self) -> None:
        """Begin nothing from now on."""
        self.is_closed = True

    async def end(self) -> None:
        """Cancel what runs, and await its end."""
        self.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _reap(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of the queen failed", exc_info=task.exception())
