"""Telling the death of many from the queen's own loss of the network."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

LOSSES_MAX = 100_000
"""Losses that are kept, of the last ones."""

FEWEST = 3
"""Hives that must have gone for it to be most of a fleet."""


@dataclass(frozen=True, slots=True)
class Outage:
    """Most of a fleet: so many hives have gone within `window` seconds, of so many in all.

    `hives` are those that have gone, where this is the loss that made it most of the fleet; after that, in
    the same outage, it is empty.
    """

    lost: int
    of: int
    window: float
    hives: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.lost} of {self.of} hives were lost within {self.window:g} s"


class OutageDetector:
    """Of the hives that were online, how many were lost within `window` seconds?

    A loss costs the same however many there were.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._losses: deque[tuple[float, str]] = deque()
        self._counts: Counter[str] = Counter()
        """How often each hive is among them."""
        self._is_on = False

    def note(self, hive_id: str, *, online: int, window: float) -> Outage | None:
        """Note one that is lost, while `online` others are left; None as long as that is not most of them."""
        now = self._clock()
        losses = self._losses
        while losses and (now - losses[0][0] > window or len(losses) == LOSSES_MAX):
            self._drop()
        if not self._losses:
            self._is_on = False
        self._losses.append((now, hive_id))
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
