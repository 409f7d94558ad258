"""Runs rbee-fetch@ID.service: writes its request, starts it, and waits for its end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from rbee.errors import RbeeError, Stopping
from rbee.files import write_whole
from rbee.modelfile.store import StoreRequest, read_small, small
from rbee.scope import Scope, fetch_unit
from rbee.systemd.control import Verb
from rbee.systemd.unit import UnitState

log = logging.getLogger("rbee")

RETRY_INTERVAL = 1.0
"""Seconds before the state of a unit is read again if that has failed."""

READ_AGAIN = 60.0
"""Seconds after which a unit's state is read even without a signal."""


class Units(Protocol):
    """The part of AsyncBus that is used here. Raises RbeeError."""

    def on_unit_changed(self, unit: str, heard: Callable[[], None]) -> None:
        """Call `heard` whenever a property of the unit changes."""

    async def state(self, unit: str) -> UnitState:
        """Return the unit's state."""

    async def has_job(self, unit: str) -> bool:
        """Return whether systemd has a job for the unit."""


class Asks(Protocol):
    """The part of Control that is used here. Raises RbeeError."""

    async def ask(self, verb: Verb, unit: str) -> str:
        """Have systemd apply a verb to a unit."""


class FetchUnits:
    """The instances of rbee-fetch@.service, each with its request file."""

    def __init__(self, scope: Scope, units: Units, control: Asks) -> None:
        self._folder = scope.fetch_requests
        self._units = units
        self._control = control
        self._changed: dict[str, asyncio.Event] = {}
        """By unit. A match lasts as long as the bus connection, so that each unit gets only one."""

    # Requests

    def requests(self) -> dict[str, StoreRequest]:
        """Return the requests by id; a file that is not a valid request is removed."""
        found: dict[str, StoreRequest] = {}
        paths = sorted(self._folder.iterdir()) if self._folder.is_dir() else []
        for path in paths:
            request = None if path.name.startswith(".") else read_small(path, StoreRequest)
            if request is None:
                path.unlink(missing_ok=True)
            else:
                found[path.name] = request
        return found

    async def write(self, fetch_id: str, request: StoreRequest) -> None:
        """Write the request of a unit, in place of an earlier one, readable by root and this user only."""
        await asyncio.to_thread(self._write, self._folder / fetch_id, request)

    def _write(self, path: Path, request: StoreRequest) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)
        write_whole(path, small(request), mode=0o600)

    def drop(self, fetch_id: str) -> None:
        """Remove a request, if it exists."""
        (self._folder / fetch_id).unlink(missing_ok=True)

    # The unit

    async def run(self, fetch_id: str, heard: Callable[[UnitState], None] = lambda state: None) -> UnitState:
        """Start the unit, unless it runs, and return its state when it has ended. Raises RbeeError.

        `heard` is called with each new state.
        """
        unit = fetch_unit(fetch_id)
        self._listen(unit)
        state = await self._units.state(unit)
        if state.active == "failed":
            await self._control.ask("reset-failed", unit)
        if state.is_stopped:
            await self._control.ask("start", unit)
        return await self._end(unit, heard)

    async def stop(self, fetch_id: str) -> None:
        """Stop the unit, and return when it has ended. Raises RbeeError."""
        unit = fetch_unit(fetch_id)
        self._listen(unit)
        if not (await self._units.state(unit)).is_stopped:
            await self._control.ask("stop", unit)
            await self._end(unit, lambda state: None)

    async def settle(self, fetch_id: str) -> None:
        """Have systemd forget a failure that the hive has taken note of: it degrades the machine."""
        unit = fetch_unit(fetch_id)
        try:
            if (await self._units.state(unit)).active == "failed":
                await self._control.ask("reset-failed", unit)
        except RbeeError as error:
            log.warning("%s stays failed: %s", unit, error.message)

    async def _end(self, unit: str, heard: Callable[[UnitState], None]) -> UnitState:
        changed = self._listen(unit)
        while True:
            changed.clear()
            try:
                state = await self._units.state(unit)
                heard(state)
                if state.is_stopped and not await self._units.has_job(unit):
                    return await self._units.state(unit)
            except Stopping:
                raise
            except RbeeError as error:  # the unit goes on
                log.warning("%s cannot be followed, retrying: %s", unit, error)
                await asyncio.sleep(RETRY_INTERVAL)
                continue
            try:
                async with asyncio.timeout(READ_AGAIN):
                    await changed.wait()
            except TimeoutError:
                continue

    def _listen(self, unit: str) -> asyncio.Event:
        changed = self._changed.get(unit)
        if changed is None:
            changed = self._changed[unit] = asyncio.Event()
            self._units.on_unit_changed(unit, changed.set)
        return changed
