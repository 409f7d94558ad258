"""The line in `systemctl status queen-rbee`."""

from __future__ import annotations

from collections import Counter

from rbee.narration import Event, Narrator
from rbee.queen.jobs import Jobs
from rbee.systemd.daemon import Notifier
from rbee.wire.hives import State


class StatusLine(Narrator):
    """How many hives are in which state, and what goes on right now.

    `trouble` is what keeps hives from reaching the queen at all; '' if nothing does.
    """

    def __init__(self, notifier: Notifier, tally: Counter[State], jobs: Jobs) -> None:
        self._notifier = notifier
        self._tally = tally
        self._jobs = jobs
        self.trouble = ""

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        is_going_on = any(job.state == "running" for job in self._jobs.all())
        self._notifier.status(f"{self.counts()}; {text}" if is_going_on else self.counts())

    def update(self) -> None:
        """The counts may have changed."""
        self._notifier.status(self.counts())

    def counts(self) -> str:
        tally = self._tally
        counts = [f"{tally[state]} {state}" for state in ("online", "suspect", "offline")]
        counts += [f"{tally[state]} {state}" for state in ("pending", "unknown") if tally[state]]
        return f"hives: {', '.join(counts)}" + (f"; {self.trouble}" if self.trouble else "")
