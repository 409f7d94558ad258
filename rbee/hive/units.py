"""The units of workers and fetches, over D-Bus and the hive's control socket, for asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable
from typing import Any, Protocol

from rbee.errors import RbeeError, Unreachable
from rbee.scope import Scope
from rbee.systemd.aio import AsyncBus
from rbee.systemd.bus import Bus
from rbee.systemd.control import LOG_ENTRIES, HiveControl, Verb
from rbee.systemd.journal import Tail, tail_of
from rbee.systemd.unit import UnitState

log = logging.getLogger("rbee")

START_TIMEOUT = 3700.0
"""Seconds that a start may take: more than LOAD_MAX, after which the launcher's watcher gives up."""

STOP_TIMEOUT = 15.0
"""Seconds that a stop may take: more than twice TimeoutStopSec= of the unit, for SIGTERM and then SIGKILL."""

MATCHES_MAX = 128
"""Matches of units that are no longer followed, after which the bus is reconnected: a match ends only with
its connection, which may have 512 of them, and there may be 256 workers."""

MATCHES_MOST = 192
"""As MATCHES_MAX, while a job is awaited: what is heard of its end is lost with the connection."""


class Units(Protocol):
    """What workers need from systemd. The methods raise RbeeError."""

    async def state(self, unit: str) -> UnitState:
        """Return the unit's state."""

    async def start(self, unit: str) -> None:
        """Start the unit, and wait until its job has ended."""

    async def stop(self, unit: str) -> None:
        """Stop the unit, and wait until it has stopped."""

    async def reset_failed(self, unit: str) -> None:
        """Reset the failed state of the unit."""

    async def log(self, unit: str, time: tuple[float, float] | None = None) -> Tail:
        """Return the last lines that the unit's engine has printed, in any of its runs.

        `time` is their first and last one, in seconds since 1970, which are rounded down and up. At most
        LOG_ENTRIES; none if they cannot be read.
        """

    def follow(self, unit: str) -> asyncio.Event:
        """Return an event that is set at each change of the unit from now on."""

    def unfollow(self, unit: str) -> None:
        """Stop following the unit."""


class SystemdUnits:
    """Connected to the bus only while a unit is followed, so that no signals wake an idle hive."""

    def __init__(
        self,
        scope: Scope,
        *,
        open_bus: Callable[[Scope], Any] = Bus,
        control: HiveControl | None = None,
    ) -> None:
        self._scope = scope
        self._open_bus = open_bus
        self._control = control or HiveControl(scope)
        self._followed: dict[str, asyncio.Event] = {}
        self._heard: dict[str, Callable[[], None]] = {}
        self._matched: set[str] = set()
        self._bus: AsyncBus | None = None
        self._ends = contextlib.ExitStack()

    async def state(self, unit: str) -> UnitState:
        return await self._opened().state(unit)

    async def start(self, unit: str) -> None:
        self._control.prepare()
        try:
            await self._opened().start(unit, timeout=START_TIMEOUT)
        finally:
            self._close_unused()

    async def stop(self, unit: str) -> None:
        self._control.prepare()
        try:
            try:
                await self._opened().stop(unit, timeout=STOP_TIMEOUT)
            except Unreachable:
                # The end of its job was lost with the bus. For a unit that has stopped, another ends at once.
                await self._opened().stop(unit, timeout=STOP_TIMEOUT)
        finally:
            self._close_unused()

    async def reset_failed(self, unit: str) -> None:
        await self._control.ask("reset-failed", unit)

    async def log(self, unit: str, time: tuple[float, float] | None = None) -> Tail:
        whole = None if time is None else (math.floor(time[0]), math.ceil(time[1]))
        return tail_of(await self._control.log(unit, whole), LOG_ENTRIES)

    def follow(self, unit: str) -> asyncio.Event:
        changed = self._followed[unit] = asyncio.Event()
        if self._bus is not None:
            self._match(self._bus, unit)
        return changed

    def unfollow(self, unit: str) -> None:
        self._followed.pop(unit, None)
        self._close_unused()

    # As the fetches use it

    def on_unit_changed(self, unit: str, heard: Callable[[], None]) -> None:
        """As AsyncBus.on_unit_changed(), and also after the connection to the bus was lost and is back."""
        self._heard[unit] = heard
        self._match(self._opened(), unit)

    async def has_job(self, unit: str) -> bool:
        """As Bus.has_job()."""
        return await self._opened().has_job(unit)

    async def ask(self, verb: Verb, unit: str) -> str:
        """As AsyncBus.ask()."""
        return await self._opened().ask(verb, unit)

    def _close_unused(self) -> None:
        is_waiting = self._bus is not None and self._bus.awaits_job
        if not self._followed and not self._heard and not is_waiting:
            self.close()

    def close(self) -> None:
        """Close the connection, which is opened again at the next use."""
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.detach()
        self._matched = set()
        self._ends.close()

    def _opened(self) -> AsyncBus:
        """Return the bus, connected if it is not yet. Raises RbeeError."""
        if self._bus is not None and self._is_full(self._bus):
            self._reopen(RbeeError("the connection to the bus has too many matches, and is another now"))
        if self._bus is None:
            bus = AsyncBus(
                self._ends.enter_context(self._open_bus(self._scope)), self._control, lost=self._lost
            )
            bus.attach()
            self._bus = bus
            for unit in (*self._followed, *self._heard):
                self._match(bus, unit)
        return self._bus

    def _is_full(self, bus: AsyncBus) -> bool:
        unused = len(self._matched) - len(self._followed) - len(self._heard)
        return unused > (MATCHES_MOST if bus.awaits_job else MATCHES_MAX)

    def _match(self, bus: AsyncBus, unit: str) -> None:
        if unit not in self._matched:
            self._matched.add(unit)
            bus.on_unit_changed(unit, lambda: self._changed(unit))

    def _changed(self, unit: str) -> None:
        if (changed := self._followed.get(unit)) is not None:
            changed.set()
        if (heard := self._heard.get(unit)) is not None:
            heard()

    def _lost(self, error: RbeeError) -> None:
        log.warning("the connection to the bus was lost, reconnecting: %s", error)
        self._reopen(error)

    def _reopen(self, why: RbeeError) -> None:
        """Close the connection, and have each unit's state read again, which reconnects.

        Changes may have been lost with it, and ends of jobs: who awaits one gets Unreachable.
        """
        if self._bus is not None:
            self._bus.abandon(why)
        self.close()
        for unit in {*self._followed, *self._heard}:
            self._changed(unit)
