"""The bus in an event loop: jobs are awaited, and signals delivered as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from rbee.errors import RbeeError, TimedOut, UnitFailed
from rbee.systemd.bus import Bus
from rbee.systemd.unit import UnitState, check_job, unusable
from rbee.wire.hives import MachineEnd

Result = TypeVar("Result")


class AsyncBus:
    """The same bus for an event loop: signals are pumped by the loop, jobs are awaited.

    The calls themselves block until systemd and polkit answer: some milliseconds, BUS_TIMEOUT at most. A job
    that was not confirmed by then is requested again: systemd answers no call while it reads its unit files.
    """

    def __init__(self, bus: Bus, *, lost: Callable[[RbeeError], None]) -> None:
        """`lost` is called once if the bus goes away: from then on there are no signals."""
        self._bus = bus
        self._lost = lost
        self._jobs: dict[str, asyncio.Future[str]] = {}
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

    def state(self, unit: str) -> UnitState:
        """As Bus.state()."""
        return self._asked(lambda: self._bus.state(unit))

    def has_job(self, unit: str) -> bool:
        """As Bus.has_job()."""
        return self._asked(lambda: self._bus.has_job(unit))

    def machine_end(self) -> MachineEnd | None:
        """As Bus.machine_end()."""
        return self._asked(self._bus.machine_end)

    def ask_stop(self, unit: str) -> str:
        """As Bus.ask_stop()."""
        return self._asked(lambda: self._bus.ask_stop(unit))

    def reset_failed(self, unit: str) -> None:
        """As Bus.reset_failed()."""
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
        deadline = loop.time() + timeout
        job = await self._confirmed(lambda: ask(unit), deadline)
        future = self._jobs[job] = loop.create_future()
        try:
            async with asyncio.timeout_at(deadline):
                result = await future
        except TimeoutError as error:
            raise TimedOut(
                f"{unit} was not done after {timeout:g} s", hint=self._bus.scope.systemctl(f"status {unit}")
            ) from error
        finally:
            self._jobs.pop(job, None)
        try:
            check_job(unit, result, lambda: self.state(unit), doing, scope=self._bus.scope)
        except UnitFailed as error:
            raise unusable(error) from error

    async def _confirmed(self, ask: Callable[[], str], deadline: float) -> str:
        """The job that `ask` asks for; twice is as well as once, as systemd merges a job with its like."""
        while True:
            try:
                return self._asked(ask)
            except TimedOut:
                if asyncio.get_running_loop().time() >= deadline:
                    raise
            await asyncio.sleep(0)  # The loop's other work, which has waited for a whole call.

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

    def _job_removed(self, job: str, result: str) -> None:
        future = self._jobs.get(job)
        if future is not None and not future.done():
            future.set_result(result)
