"""The bus in an event loop: jobs are awaited, and signals delivered as they come."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable
from typing import TypeVar

from rbee.errors import RbeeError, TimedOut, UnitFailed
from rbee.systemd.bus import Bus
from rbee.systemd.unit import DONE, UnitState, check_job, unusable
from rbee.wire.hives import MachineEnd

Result = TypeVar("Result")

CONFIRM_TIMEOUT = 25.0
"""Seconds that systemd and polkit may take beyond BUS_TIMEOUT: systemd itself waits for polkit that long."""

READ_AGAIN_AFTER = 0.1
"""Seconds for the loop's other work, which has waited for a whole call, the watchdog's among it."""


class AsyncBus:
    """The same bus for an event loop: signals are pumped by the loop, jobs are awaited.

    A call itself blocks until systemd and polkit answer: some milliseconds, BUS_TIMEOUT at most. systemd
    answers none while it reads its unit files, and polkit may take long. So a property is read again, and a
    job that was not confirmed is recognised by its unit, for CONFIRM_TIMEOUT.
    """

    def __init__(self, bus: Bus, *, lost: Callable[[RbeeError], None]) -> None:
        """`lost` is called once if the bus goes away: from then on there are no signals."""
        self._bus = bus
        self._lost = lost
        # By the object path of the job, or by its unit if systemd has not confirmed it.
        self._jobs: defaultdict[str, set[asyncio.Future[str]]] = defaultdict(set)
        self._fd: int | None = None

    def attach(self) -> None:
        """Receive signals in the running loop, until detach()."""
        self._bus.on_job_removed(self._job_removed)
        # Kept, as a bus that is gone has no descriptor, and the loop would keep its number.
        self._fd = self._bus.fileno()
        asyncio.get_running_loop().add_reader(self._fd, self._pump)

    def detach(self) -> None:
        """Receive no more signals."""
        fd, self._fd = self._fd, None
        if fd is not None:
            asyncio.get_running_loop().remove_reader(fd)

    def on_unit_changed(self, unit: str, heard: Callable[[], None]) -> None:
        """As Bus.on_unit_changed()."""
        self._bus.on_unit_changed(unit, heard)

    async def state(self, unit: str) -> UnitState:
        """As Bus.state()."""
        return await self._read(lambda: self._bus.state(unit))

    async def has_job(self, unit: str) -> bool:
        """As Bus.has_job()."""
        return await self._read(lambda: self._bus.has_job(unit))

    async def machine_end(self) -> MachineEnd | None:
        """As Bus.machine_end()."""
        return await self._read(self._bus.machine_end)

    async def ask_stop(self, unit: str) -> None:
        """As Bus.ask_stop(), for who does not wait for the job's end."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CONFIRM_TIMEOUT
        try:
            self._asked(lambda: self._bus.ask_stop(unit))
        except TimedOut:
            while not await self.has_job(unit):
                if loop.time() >= deadline:
                    raise
                await asyncio.sleep(READ_AGAIN_AFTER)

    def reset_failed(self, unit: str) -> None:
        """As Bus.reset_failed(): done at the latest before what is asked for next."""
        with contextlib.suppress(TimedOut):
            self._asked(lambda: self._bus.reset_failed(unit))

    async def start(self, unit: str, *, timeout: float) -> None:
        """As Bus.start(), but raises Stopping if the unit or the queen is being stopped.

        Waking a hive must not undo a shutdown.
        """
        await self._await_job(self._bus.ask_start_unless_stopping, unit, timeout, "start")

    async def stop(self, unit: str, *, timeout: float) -> None:
        """As Bus.stop()."""
        await self._await_job(self._bus.ask_stop, unit, timeout, "stop")

    async def _await_job(self, ask: Callable[[str], str], unit: str, timeout: float, doing: str) -> None:
        loop = asyncio.get_running_loop()
        unconfirmed = None
        try:
            key = self._asked(lambda: ask(unit))
        except TimedOut as error:
            # Not asked for again: polkit would have one more to think about, and answer none in time.
            key, unconfirmed = unit, error
        future = loop.create_future()
        self._jobs[key].add(future)
        try:
            async with asyncio.timeout(timeout + (CONFIRM_TIMEOUT if unconfirmed else 0)):
                result = await future
        except TimeoutError as error:
            raise unconfirmed or TimedOut(
                f"{unit} was not done after {timeout:g} s", hint=self._bus.scope.systemctl(f"status {unit}")
            ) from error
        finally:
            self._jobs[key].discard(future)
            if not self._jobs[key]:
                del self._jobs[key]
        if result in DONE:
            return
        state = await self.state(unit)
        try:
            check_job(unit, result, lambda: state, doing, scope=self._bus.scope)
        except UnitFailed as error:
            raise unusable(error) from error

    async def _read(self, read: Callable[[], Result]) -> Result:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CONFIRM_TIMEOUT
        while True:
            try:
                return self._asked(read)
            except TimedOut:
                if loop.time() >= deadline:
                    raise
            await asyncio.sleep(READ_AGAIN_AFTER)

    def _asked(self, call: Callable[[], Result]) -> Result:
        try:
            return call()
        finally:
            # A blocking call may have read signals into the library's own queue, and then the
            # descriptor does not become readable for them.
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        if self._fd is None:
            return
        try:
            self._bus.pump()
        except RbeeError as error:
            self.detach()
            self._lost(error)

    def _job_removed(self, job: str, unit: str, result: str) -> None:
        for future in (*self._jobs.get(job, ()), *self._jobs.get(unit, ())):
            if not future.done():
                future.set_result(result)
