"""Relays the lines in a hive's heartbeats to the feed and to a job's story."""

from __future__ import annotations

from collections.abc import Callable

from rbee.narration import HIVE_EVENTS, HIVE_SAID
from rbee.queen.jobs import Jobs
from rbee.queen.restraint import Restraint
from rbee.wire.heartbeats import Heartbeat
from rbee.wire.lines import Line


class Relay:
    """`passed_on` is called with the hive's id, a line and its job's id; again if a beat is sent again."""

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
        """Relay a beat's lines, as many as the allowance permits."""
        if not beat.lines:
            return
        job = self._jobs.find(beat.job_id) or self._jobs.running("shutdown")
        if job is not None and job.hive_id not in (None, beat.hive_id):
            job = None  # a hive's lines belong in its own stories, and in the shutdown of all
        for sent in beat.lines:
            # An unknown event, or one that only the queen narrates, must not pass for the queen's.
            event = sent.event if sent.event in HIVE_EVENTS else HIVE_SAID.name
            line = Line("bee hive", sent.text, event, sent.at)
            if not self._restraint.lines.take(beat.hive_id):
                self._restraint.beyond(beat.hive_id, f"sends more lines than are relayed: {line.text[:200]}")
                continue
            self._passed_on(beat.hive_id, line, job.id if job is not None else None)
            if job is not None:
                job.add_once(line)
