"""The queen's units over D-Bus, in her event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TypeVar

from rbee.errors import RbeeError, TimedOut
from rbee.systemd import Bus, UnitState, check_job

log = logging.getLogger("rbee")

Result = TypeVar("Result")


class AsyncBus:
    """The same bus for an event loop: signals are pumped by the loop, jobs are awaited.

    The calls themselves block for as long as systemd and polkit think, some milliseconds,
    BUS_TIMEOUT at most.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._jobs: dict[str, asyncio.Future[str]] = {}

    def attach(self) -> None:
        self._bus.on_job_removed(self._job_removed)
        asyncio.get_running_loop().add_reader(self._bus.fileno(), self._pump)

    def detach(self) -> None:
        asyncio.get_running_loop().remove_reader(self._bus.fileno())

    def on_unit_changed(self, unit: str, heard: Callable[[], None]) -> None:
        self._bus.on_unit_changed(unit, heard)

    def state(self, unit: str) -> UnitState:
        return self._asked(lambda: self._bus.state(unit))

    def has_job(self, unit: str) -> bool:
        return self._asked(lambda: self._bus.has_job(unit))

    def ask_stop(self, unit: str) -> str:
        return self._asked(lambda: self._bus.ask_stop(unit))

    async def start(self, unit: str, *, timeout: float) -> None:
        """As Bus.start(), but Stopping where the unit or the queen herself is being stopped.

        A shutdown must not be undone by a hive that was just to be woken.
        """
        await self._await_job(self._bus.ask_start_unless_stopping, unit, timeout, "start")

    async def stop(self, unit: str, *, timeout: float) -> None:
        """As Bus.stop()."""
        await self._await_job(self._bus.ask_stop, unit, timeout, "stop")

    async def _await_job(self, ask: Callable[[str], str], unit: str, timeout: float, doing: str) -> None:
        job = self._asked(lambda: ask(unit))
        future = self._jobs.setdefault(job, asyncio.get_running_loop().create_future())
        try:
            async with asyncio.timeout(timeout):
                result = await asyncio.shield(future)
        except TimeoutError as error:
            raise TimedOut(
                f"{unit} was not done after {timeout:g} s", hint=f"systemctl status {unit}"
            ) from error
        finally:
            self._jobs.pop(job, None)
        check_job(unit, result, self.state(unit), doing)

    def _asked(self, call: Callable[[], Result]) -> Result:
        try:
            return call()
        finally:
            # A blocking call may have read signals into the library's own queue, where the
            # descriptor no longer tells of them.
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        try:
            self._bus.pump()
        except RbeeError as error:
            # The bus is gone, and its descriptor would be readable for ever.
            self.detach()
            log.error("%s; restart the service once D-Bus is back", error.message)

    def _job_removed(self, job: str, result: str) -> None:
        future = self._jobs.get(job)
        if future is not None and not future.done():
            future.set_result(result)
