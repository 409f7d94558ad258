"""Watches all hives for silence."""

from __future__ import annotations

import asyncio
import heapq
from itertools import count

from rbee.queen.hives.hive import Hive
from rbee.queen.hives.mass_loss import LossReports
from rbee.queen.hives.standing import Shared

LATENESS = 0.05
"""The part of the grace by which a verdict may be late, so that many hives are judged together."""


class Watch:
    """Judges each hive when its silence could change its state; hives that are not due cost nothing."""

    def __init__(self, shared: Shared, losses: LossReports) -> None:
        self._shared = shared
        self._losses = losses
        self._looks: list[tuple[float, int, Hive]] = []
        """A heap: the monotonic second of the next look at a hive, and a number in case two are equal."""
        self._numbers = count()

    def add(self, hive: Hive) -> None:
        """Watch a hive until it is removed."""
        self._look_later(hive)

    async def run(self) -> None:
        """Judge hives by silence until cancelled."""
        while True:
            self._judge()
            await asyncio.sleep(self._next_look())

    def _judge(self) -> None:
        now = self._shared.clocks.monotonic()
        while self._looks and self._looks[0][0] <= now:
            hive = heapq.heappop(self._looks)[2]
            if hive.is_removed:
                continue
            if hive.standing.life.judge(hive.patience):
                is_offline = hive.standing.life.state == "offline"
                self._losses.note(hive, counts=is_offline and hive.fell_silent())
            self._look_later(hive)

    def _look_later(self, hive: Hive) -> None:
        """Schedule the next look: when it is due, but at most an interval later, as the state may change."""
        interval = self._shared.pace.interval
        due = hive.standing.life.due(hive.patience)
        wait = interval if due is None else max(0.0, min(due, interval))
        # Slightly later than due, or the timer may fire a moment too early and judge twice.
        at = self._shared.clocks.monotonic() + wait + 0.01
        heapq.heappush(self._looks, (at, next(self._numbers), hive))

    def _next_look(self) -> float:
        """Return the seconds until the next look; at most an interval, as hives may be added."""
        pace = self._shared.pace
        first = self._looks[0][0] - self._shared.clocks.monotonic() if self._looks else pace.interval
        return min(max(first, LATENESS * pace.grace), pace.interval)
