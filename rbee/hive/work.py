"""What a hive works on for its queen, as a mark that changes: then the queen asks what is new."""

from __future__ import annotations

import time
from collections.abc import Callable

from rbee.narration import Event, Narrator


class Serials:
    """Numbers that grow, over restarts of the hive too: milliseconds since 1970, and always a larger one."""

    def __init__(self, clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._clock_ms = clock_ms
        self._last = 0

    def next(self) -> int:
        """Return a number larger than all before."""
        self._last = max(self._last + 1, self._clock_ms())
        return self._last


class Work:
    """The mark in a hive's heartbeats (Heartbeat.work) of all its workers and fetches.

    `hurry` is called at each change, so that a beat goes at once.
    """

    def __init__(self, serials: Serials, hurry: Callable[[], None]) -> None:
        self.serials = serials
        self._hurry = hurry
        self._mark: str | None = None

    @property
    def mark(self) -> str | None:
        """The mark; None for a hive that has had nothing to do."""
        return self._mark

    def changed(self) -> None:
        """Note a change, and have it reported."""
        self._mark = f"{self.serials.next():x}"
        self._hurry()


class Prompt(Narrator):
    """Narrates what changes the hive's work: the line goes with a beat at once."""

    def __init__(self, narrator: Narrator, work: Work) -> None:
        self._narrator = narrator
        self._work = work

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        self._narrator.narrate(event, text, **fields)
        self._work.changed()
