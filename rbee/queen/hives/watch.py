"""Watches all hives for silence, and for an outage of most of them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from rbee.narration import FLEET_LOST
from rbee.queen.hives.hive import Hive
from rbee.queen.hives.outage import OutageDetector
from rbee.queen.hives.standing import Shared
from rbee.wire.types import LOCALHOST

LIKELY = "likely the network of the queen's own machine"

NAMED_MAX = 20
"""Hives named in one line about an outage."""


class Watch:
    """`hives` are the hives in the catalog by id, a live view."""

    def __init__(self, shared: Shared, hives: Mapping[str, Hive]) -> None:
        self._shared = shared
        self._hives = hives
        self._outages = OutageDetector(clock=shared.clocks.monotonic)

    async def run(self) -> None:
        """Judge hives by silence until cancelled."""
        while True:
            await self.judge()
            await asyncio.sleep(self.next_verdict())

    async def judge(self) -> None:
        """Judge each hive by its silence once, and store which are offline."""
        for hive in list(self._hives.values()):
            if hive.standing.judge(hive.patience):
                if hive.fell_silent():
                    self.note_loss(hive)
                await hive.standing.remember("offline")

    def next_verdict(self) -> float:
        """Return the seconds until silence can change a state; at most an interval, for new hives."""
        waits = (hive.standing.life.due(hive.patience) for hive in self._hives.values())
        interval = self._shared.pace.interval
        soonest = min((due for due in waits if due is not None), default=interval)
        # Slightly later than due, or the timer may fire a moment too early and judge twice.
        return max(0.0, min(soonest, interval)) + 0.01

    def note_loss(self, hive: Hive) -> None:
        """Count a lost hive; if most are lost, narrate the outage and add its cause to their reasons."""
        interval = self._shared.pace.of_remote
        window = interval + self._shared.pace.grace_of(interval)
        local = self._hives.get(LOCALHOST)  # needs no network
        online = self._shared.tally["online"] - (local is not None and local.standing.is_online)
        outage = self._outages.note(hive.id, online=online, window=window)
        if outage is None:
            return
        if outage.hives:
            names = ", ".join(outage.hives[:NAMED_MAX])
            self._shared.narrator.narrate(FLEET_LOST, f"{outage}: {LIKELY}. Lost: {names}")
        for hive_id in outage.hives or (hive.id,):
            other = self._hives.get(hive_id)
            if other is not None and other.standing.life.state == "offline":
                reason = other.standing.life.reason
                if LIKELY not in reason:
                    other.standing.set("offline", f"{reason}; {outage}: {LIKELY}")
