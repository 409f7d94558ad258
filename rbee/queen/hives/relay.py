"""A hive's own lines, which its beats bring, on their way into the events and into a story."""

from __future__ import annotations

from collections.abc import Callable

from rbee.narration import HIVE_EVENTS, HIVE_SAID
from rbee.queen.jobs import Jobs
from rbee.queen.restraint import Restraint
from rbee.wire.events import Line
from rbee.wire.hives import Heartbeat


class Relay:
    """`passed_on` gets the hive's name, each line, and its job's id: again with a beat that comes again."""

    def __init__(
        self,
        jobs: Jobs,
        restraint: Restraint,
        passed_on: Callable[[str, Line, str | None], None] = lambda hive_id, line, job_id: None,
    ) -> None:
        self._jobs = jobs
        self._restraint = restraint
        self._passed_on = passed_on

    def take(self, beat: Heartbeat) -> None:
        """Put a beat's lines where they belong, as many as a hive may say."""
        if not beat.lines:
            return
        job = self._jobs.find(beat.job_id) or self._jobs.running("shutdown")
        if job is not None and job.hive_id not in (None, beat.hive_id):
            job = None  # a hive speaks in its own stories, and in the shutdown of all
        for said in beat.lines:
            # A word that is the queen's own, or that she does not know, would be taken for what it is not.
            event = said.event if said.event in HIVE_EVENTS else HIVE_SAID.name
            line = Line("bee hive", said.text, event, said.at)
            if not self._restraint.lines.take(beat.hive_id):
                self._restraint.beyond(beat.hive_id, f"says more than is told: {line.text[:200]}")
                continue
            self._passed_on(beat.hive_id, line, job.id if job is not None else None)
            if job is not None:
                job.tell_once(line)
