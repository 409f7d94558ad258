"""One start of a model's worker, for which requests wait."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from rbee.errors import RbeeError
from rbee.narration import Narrator
from rbee.queen.changes import Changes
from rbee.queen.jobs import Job


@dataclass(eq=False)
class Start:
    """A start of a model's worker. `waiting` requests wait for it; `error` is why it failed.

    `text` and `percent` are how far it is; `progress` is announced when they change, and at the end.
    """

    model: str
    job: Job
    story: Narrator
    began: float
    since_ms: int
    text: str
    percent: float | None = None
    waiting: int = 0
    waits_for_memory: bool = False
    is_over: bool = False
    error: RbeeError | None = None
    withdrawn: RbeeError | None = None
    progress: Changes = field(default_factory=Changes)
    task: asyncio.Task[None] | None = None

    def show(self, text: str, percent: float | None = None) -> None:
        """Set how far it is."""
        if (text, percent) != (self.text, self.percent):
            self.text, self.percent = text, percent
            self.progress.announce()
