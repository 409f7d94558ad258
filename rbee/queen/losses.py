"""Telling the death of many from the queen's own loss of the network."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

FEWEST = 3
"""Hives that must have gone for it to be most of a fleet."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Most of a fleet: the hives that have gone, of so many in all. `is_news` once an event."""

    hives: tuple[str, ...]
    of: int
    window: float
    is_news: bool

    def __str__(self) -> str:
        return f"{len(self.hives)} of {self.of} hives were lost within {self.window:g} s"


class Losses:
    """Of the hives that were online, how many were lost within `window` seconds?"""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lost: deque[tuple[float, str]] = deque(maxlen=100_000)
        self._is_told = False

    def note(self, hive_id: str, *, online: int, window: float) -> Lost | None:
        """Note one that is lost, while `online` others are left; None as long as that is not most of them."""
        now = self._clock()
        while self._lost and now - self._lost[0][0] > window:
            self._lost.popleft()
        if not self._lost:
            self._is_told = False
        self._lost.append((now, hive_id))
        gone = tuple(sorted({lost for _, lost in self._lost}))
        if len(gone) < FEWEST or len(gone) <= online:
            return None
        is_news, self._is_told = not self._is_told, True
        return Lost(gone, len(gone) + online, window, is_news)
