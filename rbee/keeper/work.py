"""What a verb has at hand, whatever it does: systemd's bus, whoever tells the person, and a deadline."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from rbee.errors import TimedOut
from rbee.narration import Teller
from rbee.systemd.bus import Bus


class Deadline:
    """What the person allows a verb to take in all, in seconds; None is any time."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._ends = None if seconds is None else time.monotonic() + seconds

    def left(self, most: float) -> float:
        """As many seconds as a wait may take, `most` at the most; TimedOut where none are left."""
        if self._ends is None:
            return most
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimedOut(f"it was not done within the {self._seconds:g} s of --timeout")
        return min(most, left)


@dataclass(frozen=True, slots=True)
class Work:
    """`left` bounds a wait by what is left of the deadline, in seconds, and raises TimedOut after it."""

    bus: Bus
    teller: Teller
    left: Callable[[float], float]
