"""A job's wait for a hive's first heartbeat."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from rbee.errors import RbeeError, UnitFailed
from rbee.queen.jobs import Job
from rbee.scope import HIVE_UNIT


@dataclass(slots=True)
class Arrival:
    """A job that waits for a hive's first heartbeat, or for the report that none will come.

    `hint` is the command that shows what is wrong with the hive.
    `is_started` is true once the hive's unit was started; `awaits_beat` is false while the job does something
    else, during which an end of the hive does not fail the job.
    """

    job: Job
    hint: str
    is_started: bool = False
    awaits_beat: bool = True
    outcome: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def is_waiting(self) -> bool:
        """Does an end of the hive fail the job?"""
        return self.awaits_beat and not self.outcome.done()

    def beats(self) -> None:
        """End the wait: a heartbeat has come."""
        if not self.outcome.done():
            self.outcome.set_result(None)

    def dies(self, reason: str) -> None:
        """Fail the wait with UnitFailed: the hive's unit has ended for a reason."""
        message = f"{HIVE_UNIT} started and sent no heartbeat: {reason}"
        self.refuse(UnitFailed(message, hint=self.hint))

    def refuse(self, error: RbeeError) -> None:
        """Fail the wait with an error."""
        if not self.outcome.done():
            self.outcome.set_exception(error)
