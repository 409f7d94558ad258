"""Detects an outage: most hives lost at once, likely because the queen lost its network."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from typing import NamedTuple

LOSSES_MAX = 100_000
"""The most recent losses that are kept."""

FEWEST = 3
"""The fewest lost hives that make an outage."""


class Outage(NamedTuple):
    """`lost` hives, most of a fleet of `of`, were lost within `window` seconds.

    `hives` are their ids for the loss that made it an outage, and empty for further losses in it.
    """

    lost: int
    of: int
    window: float
    hives: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.lost} of {self.of} hives were lost within {self.window:g} s"


class OutageDetector:
    """Counts the hives lost within a window of time; the cost of a loss is constant."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._losses: deque[tuple[float, str]] = deque()
        self._counts: Counter[str] = Counter()
        """Hive id -> how often it is among the losses."""
        self._is_on = False

    def note(self, *hive_ids: str, online: int, window: float) -> Outage | None:
        """Note lost hives, with `online` others left; None unless most are lost within `window` seconds."""
        now = self._clock()
        losses = self._losses
        while losses and now - losses[0][0] > window:
            self._drop()
        if not self._losses:
            self._is_on = False
        for hive_id in hive_ids:
            if len(losses) == LOSSES_MAX:
                self._drop()
            losses.append((now, hive_id))
            self._counts[hive_id] += 1
        lost = len(self._counts)
        if lost < FEWEST or lost <= online:
            return None
        was_on, self._is_on = self._is_on, True
        return Outage(lost, lost + online, window, () if was_on else tuple(sorted(self._counts)))

    def _drop(self) -> None:
        _, hive_id = self._losses.popleft()
        self._counts[hive_id] -= 1
        if not self._counts[hive_id]:
            del self._counts[hive_id]
