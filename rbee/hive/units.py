"""The units of workers and fetches, over D-Bus and the hive's control socket, in an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Protocol

from rbee.errors import RbeeError
from rbee.scope import Scope
from rbee.systemd.aio import AsyncBus
from rbee.systemd.bus import Bus
from rbee.systemd.control import HiveControl, Verb
from rbee.systemd.unit import UnitState

log = logging.getLogger("rbee")

START_TIMEOUT = 3700.0
"""Seconds that a start may take: the launcher's watcher gives up before that."""

STOP_TIMEOUT = 15.0
"""Seconds that a stop may take: TimeoutStopSec= of the unit, twice, as after SIGTERM comes SIGKILL."""

MATCHES_MAX = 256
"""Units whose changes are received on one connection; the bus lets a connection have 512 matches, and a
match ends with its connection only."""


class Units(Protocol):
    """What workers need of systemd. Raises RbeeError."""

    async def state(self, unit: str) -> UnitState:
        """The unit's state now."""

    async def start(self, unit: str) -> None:
        """Start it, and wait until its job has ended."""

    async def stop(self, unit: str) -> None:
        """Stop it, and wait until it has stopped."""

    async def reset_failed(self, unit: str) -> None:
        """Have it failed no more."""

    async def log(self, unit: str) -> list[str]:
        """The last lines that it wrote."""

    def follow(self, unit: str) -> asyncio.Event:
        """An event that is set at each change of the unit from now on."""

    def unfollow(self, unit: str) -> None:
        """Follow the unit no more."""


class SystemdUnits:
    """The bus is open while a unit is followed: an idle hive is woken by none of the machine's signals."""

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
        await self._opened().start(unit, timeout=START_TIMEOUT)

    async def stop(self, unit: str) -> None:
        self._control.prepare()
        await self._opened().stop(unit, timeout=STOP_TIMEOUT)

    async def reset_failed(self, unit: str) -> None:
        await self._control.ask("reset-failed", unit)

    async def log(self, unit: str) -> list[str]:
        return await self._control.log(unit)

    def follow(self, unit: str) -> asyncio.Event:
        changed = self._followed[unit] = asyncio.Event()
        if self._bus is not None:
            self._match(self._bus, unit)
        return changed

    def unfollow(self, unit: str) -> None:
        self._followed.pop(unit, None)
        if not self._followed and not self._heard:
            self.close()

    # As the fetches use it

    def on_unit_changed(self, unit: str, heard: Callable[[], None]) -> None:
        """As AsyncBus.on_unit_changed(), also after the bus was away."""
        self._heard[unit] = heard
        self._match(self._opened(), unit)

    async def has_job(self, unit: str) -> bool:
        """As Bus.has_job()."""
        return await self._opened().has_job(unit)

    async def ask(self, verb: Verb, unit: str) -> str:
        """As Control.ask()."""
        return await self._control.ask(verb, unit)

    def close(self) -> None:
        """Close the connection, which is opened again if it is used."""
        bus, self._bus = self._bus, None
        if bus is not None:
            bus.detach()
        self._matched = set()
        self._ends.close()

    def _opened(self) -> AsyncBus:
        """The bus, opened if it is not. Raises RbeeError."""
        if self._bus is not None and len(self._matched) > MATCHES_MAX + len(self._followed) + len(
            self._heard
        ):
            self.close()
        if self._bus is None:
            bus = AsyncBus(
                self._ends.enter_context(self._open_bus(self._scope)), self._control, lost=self._lost
            )
            bus.attach()
            self._bus = bus
            for unit in (*self._followed, *self._heard):
                self._match(bus, unit)
        return self._bus

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
        """The bus is gone, and what changes meanwhile: it is opened again to look at each unit."""
        log.warning("the bus is gone and is connected again: %s", error)
        self.close()
        for unit in {*self._followed, *self._heard}:
            self._changed(unit)
