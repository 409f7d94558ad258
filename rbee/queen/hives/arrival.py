"""A hive that somebody waits for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from rbee.errors import RbeeError, UnitFailed
from rbee.queen.jobs import Job
from rbee.scope import HIVE_UNIT


@dataclass(slots=True)
class Arrival:
    """A job that waits for a hive's first heartbeat, or for systemd's word that none will come.

    `is_started` once the hive's unit was started; not `awaits_beat` while the job is at something else, to
    which the hive's end is what it is to anybody.
    """

    job: Job
    is_started: bool = False
    awaits_beat: bool = True
    outcome: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    @property
    def is_waiting(self) -> bool:
        return self.awaits_beat and not self.outcome.done()

    def beats(self) -> None:
        if not self.outcome.done():
            self.outcome.set_result(None)

    def dies(self, reason: str) -> None:
        died = f"{HIVE_UNIT} started and sent no heartbeat: {reason}"
        self.refuse(UnitFailed(died, hint=f"systemctl status {HIVE_UNIT}"))

    def refuse(self, error: RbeeError) -> None:
        if not self.outcome.done():
            self.outcome.set_exception(error)
