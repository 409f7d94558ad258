"""Hives that were lost, narrated and stored together: many may be lost at once."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rbee.errors import CatalogFailed
from rbee.narration import FLEET_LOST, HIVES_LOST
from rbee.queen.hives.hive import Hive
from rbee.queen.hives.outage import OutageDetector
from rbee.queen.hives.standing import Shared
from rbee.wire.hives import State
from rbee.wire.types import LOCALHOST

log = logging.getLogger("rbee")

LIKELY = "likely the network of the queen's own machine"

NAMED_MAX = 20
"""Hives named in one line. If more are lost together, there is one line for each reason."""

MOMENT = 0.5
"""Seconds at most for which losses are collected before they are narrated, unless many still come."""

MOMENT_EACH = 0.001
"""Seconds of collecting for each remote hive: with few hives a loss is narrated almost at once."""

MOMENT_MAX = 4.0
"""Seconds at most while many are lost and more still come, or many each time: it then doubles each time."""


class _Loss(NamedTuple):
    """A hive that became suspect or offline, and why; `counts` is whether it counts towards an outage."""

    hive: Hive
    state: State
    reason: str
    counts: bool


class LossReports:
    """Collects losses for a moment, then narrates and stores them. `hives` is a live view, by id."""

    def __init__(self, shared: Shared, hives: Mapping[str, Hive]) -> None:
        self._shared = shared
        self._hives = hives
        self._outages = OutageDetector(clock=shared.clocks.monotonic)
        self._collected: list[_Loss] = []
        self._timer: asyncio.TimerHandle | None = None
        self._moment = 0.0
        """Seconds for which the losses of the last batch were collected, 0 if they were few."""

    def note(self, hive: Hive, *, counts: bool = False) -> None:
        """Note that a hive became suspect or offline; this is narrated and stored within a moment."""
        life = hive.standing.life
        self._collected.append(_Loss(hive, life.state, life.reason, counts))
        hive.standing.before_online = self.flush
        if self._timer is None:
            self._moment = min(MOMENT_MAX, 2 * self._moment) or min(
                MOMENT, MOMENT_EACH * self._shared.pace.remote
            )
            self._wait(0, self._moment)

    def _wait(self, before: int, until: float) -> None:
        """Go on collecting for a moment; `before` were there at its beginning, `until` seconds in all."""
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._moment, self._due, before, until)

    def _due(self, before: int, waited: float) -> None:
        """Flush, unless many are lost and more still come: together they may be an outage."""
        collected = len(self._collected)
        if collected > max(before, NAMED_MAX) and waited + self._moment <= MOMENT_MAX:
            self._wait(collected, waited + self._moment)
        else:
            self.flush()

    def flush(self) -> None:
        """Narrate at once what was noted, and store it in a task."""
        self._shared.tasks.begin(self._store(self._narrate()))

    async def end(self) -> None:
        """As flush(), and wait until it is stored."""
        await self._store(self._narrate())

    def _narrate(self) -> list[Hive]:
        """Narrate the collected losses, and return those of their hives that are offline now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        losses, self._collected = self._collected, []
        are_few = len(losses) <= NAMED_MAX
        self._moment = 0.0 if are_few else self._moment
        for loss in losses:
            loss.hive.standing.before_online = None
            if are_few:
                loss.hive.standing.narrate_loss(loss.state, loss.reason)
        if losses:
            self._shared.changed()
        is_outage = self._note_outage([loss.hive.id for loss in losses if loss.counts])
        if not are_few and not is_outage:
            self._narrate_many(losses)
        return [loss.hive for loss in losses if loss.hive.standing.life.state == "offline"]

    def _narrate_many(self, losses: Sequence[_Loss]) -> None:
        for (state, reason), count in Counter((loss.state, loss.reason) for loss in losses).items():
            names = [loss.hive.id for loss in losses if (loss.state, loss.reason) == (state, reason)]
            text = f"{count} hives are {state}: {reason}: {_named(names)}"
            self._shared.narrator.narrate(HIVES_LOST, text)

    def _note_outage(self, lost: Sequence[str]) -> bool:
        """If most hives are lost, narrate that once, add the cause to their reasons, and return True."""
        interval = self._shared.pace.of_remote
        window = interval + self._shared.pace.grace_of(interval)
        local = self._hives.get(LOCALHOST)  # needs no network
        online = self._shared.tally["online"] - (local is not None and local.standing.is_online)
        outage = self._outages.note(*lost, online=online, window=window) if lost else None
        if outage is None:
            return False
        if outage.hives:
            text = f"{outage}: {LIKELY}. Lost: {_named(outage.hives)}"
            self._shared.narrator.narrate(FLEET_LOST, text)
        for hive_id in outage.hives or lost:
            other = self._hives.get(hive_id)
            if other is not None and other.standing.life.state == "offline":
                reason = other.standing.life.reason
                if LIKELY not in reason:
                    other.standing.life.set("offline", f"{reason}; {outage}: {LIKELY}")
        return True

    async def _store(self, hives: Sequence[Hive]) -> None:
        """Store that hives are offline; a failure is logged, and they stay offline in RAM."""
        by_id = {hive.id: hive.standing for hive in hives}
        if not by_id:
            return
        for one in by_id.values():
            one.stored = "offline"
        try:
            for row in await self._shared.catalog.hives.set_offline([one.row for one in by_id.values()]):
                one = by_id[row.id]
                one.row = one.row._replace(status=row.status, updated_at_ms=row.updated_at_ms)
        except CatalogFailed as error:
            for one in by_id.values():
                one.stored = None
            names = _named(list(by_id))
            log.error("hives are offline, and that could not be stored: %s: %s", names, error.message)


def _named(names: Sequence[str]) -> str:
    rest = len(names) - NAMED_MAX
    return ", ".join(names[:NAMED_MAX]) + (f" and {rest} more" if rest > 0 else "")
