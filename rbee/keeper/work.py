"""What every verb has at hand: systemd's bus, a narrator for the person, and a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from rbee.errors import TimedOut
from rbee.narration import Teller
from rbee.scope import Scope
from rbee.systemd.bus import Bus


class Deadline:
    """The seconds that a verb may take in all (--timeout); None if it may take any time."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._ends = None if seconds is None else time.monotonic() + seconds

    def left(self, most: float) -> float:
        """The seconds that a wait may take, at most `most`; TimedOut if none are left."""
        if self._ends is None:
            return most
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimedOut(f"it was not done within the {self._seconds:g} s of --timeout")
        return min(most, left)


class Work(NamedTuple):
    """`left` is Deadline.left()."""

    bus: Bus
    teller: Teller
    left: Callable[[float], float]

    @property
    def scope(self) -> Scope:
        """The scope of the bus: the system's rbee, or a user's."""
        return self.bus.scope
