"""The line in `systemctl status queen-rbee`."""

from __future__ import annotations

from collections import Counter

from rbee.narration import Event, Narrator
from rbee.queen.jobs import Jobs
from rbee.systemd.daemon import Notifier
from rbee.wire.hives import State


class StatusLine(Narrator):
    """The number of hives in each state, and the last line of a running job.

    `trouble` is why no remote hive can reach the queen; '' if they can.
    """

    def __init__(self, notifier: Notifier, tally: Counter[State], jobs: Jobs) -> None:
        self._notifier = notifier
        self._tally = tally
        self._jobs = jobs
        self.trouble = ""

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        is_busy = any(job.state == "running" for job in self._jobs.all())
        self._notifier.status(f"{self.counts()}; {text}" if is_busy else self.counts())

    def update(self) -> None:
        """Show the counts, which may have changed."""
        self._notifier.status(self.counts())

    def counts(self) -> str:
        """Return the counts as one line, such as 'hives: 2 online, 0 suspect, 1 offline'."""
        tally = self._tally
        counts = [f"{tally[state]} {state}" for state in ("online", "suspect", "offline")]
        counts += [f"{tally[state]} {state}" for state in ("pending", "unknown") if tally[state]]
        return f"hives: {', '.join(counts)}" + (f"; {self.trouble}" if self.trouble else "")
