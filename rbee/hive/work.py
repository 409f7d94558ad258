"""The mark in heartbeats by which the queen sees that a hive's workers or fetches have changed."""

from __future__ import annotations

import time
from collections.abc import Callable

from rbee.narration import Event, Narrator


class Serials:
    """Serial numbers that also grow across restarts: milliseconds since 1970, or the last one plus 1."""

    def __init__(self, clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._clock_ms = clock_ms
        self._last = 0

    def next(self) -> int:
        """Return a number larger than all before."""
        self._last = max(self._last + 1, self._clock_ms())
        return self._last


class Work:
    """The mark (Heartbeat.work), which changes with any worker or fetch: then the queen asks for them.

    `hurry` is called at each change, so that a heartbeat is sent at once.
    """

    def __init__(self, serials: Serials, hurry: Callable[[], None]) -> None:
        self.serials = serials
        self._hurry = hurry
        self._mark: str | None = None

    @property
    def mark(self) -> str | None:
        """The mark; None if nothing has changed since the hive started."""
        return self._mark

    def changed(self) -> None:
        """Change the mark, and have it sent."""
        self._mark = f"{self.serials.next():x}"
        self._hurry()


class Prompt(Narrator):
    """Narrates, and changes the mark, so that the line is sent at once with a heartbeat."""

    def __init__(self, narrator: Narrator, work: Work) -> None:
        self._narrator = narrator
        self._work = work

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        self._narrator.narrate(event, text, **fields)
        self._work.changed()
