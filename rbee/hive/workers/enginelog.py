"""Writes what an engine has printed during a start into the journal again, with the job of that start.

The engine's own entries cannot have the job: LogExtraFields= of systemd.exec(5) is in the unit's file, and
the launcher, which knows the job, becomes the engine.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import NamedTuple

from rbee.errors import TEXT_LIMIT
from rbee.hive.units import Units
from rbee.narration import ALERT, ENGINE_SAID, INFO, Narrator
from rbee.systemd.journal import Entry
from rbee.text import shortened

PAUSE = 1.0
"""Seconds from the end of a start until its lines are read: the requests that have waited for the worker go
first."""

LATE = 0.5
"""Seconds after the end of a start in which journald may still receive its lines."""

BATCH, BREATH = 8, 0.01
"""Lines, and the seconds after them in which journald reads them. While the queue of its socket is full, by
the kernel's default (net.unix.max_dgram_qlen) with 11 datagrams, lines are lost, also the hive's own."""


class Start(NamedTuple):
    """A start of a worker that has ended: the worker is ready, or its engine has ended.

    `invocation` is that of its unit, `began` and `ended` are seconds since 1970, and `fields` are those of
    the lines about it.
    """

    unit: str
    invocation: str
    began: float
    ended: float
    fields: Mapping[str, str]

    @property
    def time(self) -> tuple[float, float]:
        """When journald has received its lines: from and to, in seconds since 1970."""
        return self.began, self.ended + LATE

    def has(self, entry: Entry) -> bool:
        """Whether its engine has printed the entry.

        journald looks up the invocation when it receives the first line: an engine that ends at once may
        have ended by then.
        """
        began, ended = self.time
        at = entry.at_us / 1e6
        if entry.invocation:
            return entry.invocation == self.invocation and at <= ended
        return began <= at <= ended


class EngineLog:
    """Writes the lines of starts, in the background: each as an entry of its own in `journal`.

    Their priority is debug, so that they can be left out of the hive's own, unless the engine chose one.
    """

    def __init__(self, units: Units, journal: Narrator) -> None:
        self._units = units
        self._journal = journal
        # One reader at a time, which also keeps the starts of a worker in their order.
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def repeat(self, start: Start) -> None:
        """Write the lines of a start, PAUSE seconds from now; call it once for each."""
        task = asyncio.ensure_future(self._repeat(start))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """Write no more."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _repeat(self, start: Start) -> None:
        await asyncio.sleep(PAUSE)
        async with self._turn:
            tail = await self._units.log(start.unit, start.time)
            entries = [entry for entry in tail.entries if start.has(entry)]
            if tail.is_cut and entries and entries[0] is tail.entries[0]:
                text = f"the lines before these are in the log of {start.unit} only"
                self._write(start, entries[0]._replace(text=text))
            for number, entry in enumerate(entries, 1):
                self._write(start, entry)
                if number % BATCH == 0:
                    await asyncio.sleep(BREATH)

    def _write(self, start: Start, entry: Entry) -> None:
        event = ENGINE_SAID
        if entry.priority < INFO:  # info is systemd's, for a line that has no priority
            # Not 0: journald has shown the engine's own line on every terminal.
            event = event._replace(priority=max(entry.priority, ALERT))
        at = datetime.fromtimestamp(entry.at_us / 1e6, UTC).isoformat(timespec="microseconds")
        printed_at = at.replace("+00:00", "Z")
        text = shortened(entry.text, TEXT_LIMIT)
        self._journal.narrate(event, text, printed_at=printed_at, **start.fields)
