"""The bus in an event loop: jobs are awaited, and signals delivered as they come."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from rbee.errors import RbeeError, Stopping, TimedOut, UnitFailed, Unreachable
from rbee.systemd.bus import Bus
from rbee.systemd.control import Control, NoAnswer, Verb
from rbee.systemd.unit import DONE, UnitState, check_job, unusable

if TYPE_CHECKING:
    from rbee.wire.heartbeats import MachineEnd

Result = TypeVar("Result")

READ_TIMEOUT = 25.0
"""Seconds for which a call that had no answer within BUS_TIMEOUT is repeated; systemctl waits as long."""

READ_AGAIN_AFTER = 0.1
"""Seconds between two such calls, for the loop's other work, such as the watchdog's."""


class AsyncBus:
    """The same bus for an event loop: signals are pumped by the loop, jobs are awaited.

    A question itself blocks until systemd answers: some milliseconds, BUS_TIMEOUT at most. systemd answers
    none while it reads its unit files, so it is asked again for READ_TIMEOUT.
    """

    def __init__(self, bus: Bus, control: Control, *, lost: Callable[[RbeeError], None]) -> None:
        """`lost` is called once if the bus goes away: from then on there are no signals."""
        self._bus = bus
        self._control = control
        self._lost = lost
        self._ends: defaultdict[str, set[_Ends]] = defaultdict(set)
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

    def abandon(self, why: RbeeError) -> None:
        """Have each start() and stop() that waits raise Unreachable, as nothing will be heard of its job."""
        for ends in [one for of_unit in self._ends.values() for one in of_unit]:
            ends.abandon(why)

    def on_unit_changed(self, unit: str, heard: Callable[[], None]) -> None:
        """As Bus.on_unit_changed()."""
        self._bus.on_unit_changed(unit, heard)

    async def state(self, unit: str) -> UnitState:
        """As Bus.state()."""
        return await self._read(lambda: self._bus.state(unit))

    async def has_job(self, unit: str) -> bool:
        """As Bus.has_job()."""
        return await self._read(lambda: self._bus.has_job(unit))

    async def listen_addresses(self, unit: str) -> list[tuple[str, str]]:
        """As Bus.listen_addresses()."""
        return await self._read(lambda: self._bus.listen_addresses(unit))

    async def machine_end(self) -> MachineEnd | None:
        """As Bus.machine_end()."""
        return await self._read(self._bus.machine_end)

    # What is done to them

    async def ask_stop(self, unit: str) -> None:
        """As Unit.ask_stop(), for a caller that does not wait for the job's end."""
        try:
            await self.ask("stop", unit)
        except Stopping:
            if not await self.has_job(unit):
                raise

    @property
    def awaits_job(self) -> bool:
        """Does a start() or stop() wait for its job, whose end would be lost with the connection?"""
        return bool(self._ends)

    async def reset_failed(self, unit: str) -> None:
        """As Unit.reset_failed()."""
        await self.ask("reset-failed", unit)

    async def start(self, unit: str, *, timeout: float) -> None:
        """As Unit.start(), but raises Stopping if the unit or the queen is being stopped.

        Waking a hive must not undo a shutdown.
        """
        await self._await_job("start", unit, timeout)

    async def stop(self, unit: str, *, timeout: float) -> None:
        """As Unit.stop()."""
        await self._await_job("stop", unit, timeout)

    async def ask(self, verb: Verb, unit: str) -> str:
        """As Control.ask(), but raises Stopping also if systemd is stopping the control's own socket."""
        try:
            return await self._control.ask(verb, unit)
        except NoAnswer as error:
            if await self.has_job(self._control.socket_unit):
                raise Stopping(
                    f"no {verb} of {unit}: rbee is being stopped",
                    hint="Wait for the stop to end, then try again.",
                ) from error
            raise

    async def _await_job(self, verb: Verb, unit: str, timeout: float) -> None:
        # Listening before asking, or the job may be over before its name is known.
        ends = _Ends()
        self._ends[unit].add(ends)
        try:
            job = await self.ask(verb, unit)
            async with asyncio.timeout(timeout):
                result = await ends.result_of(job)
        except _NoEndError as error:
            text = f"the connection to the bus was lost before the {verb} of {unit} had ended: {error.why}"
            raise Unreachable(text, hint=self._bus.scope.systemctl(f"status {unit}")) from error
        except TimeoutError as error:
            raise TimedOut(
                f"{unit} was not done after {timeout:g} s", hint=self._bus.scope.systemctl(f"status {unit}")
            ) from error
        finally:
            self._ends[unit].discard(ends)
            if not self._ends[unit]:
                del self._ends[unit]
        if result in DONE:
            return
        state = await self.state(unit)
        try:
            check_job(unit, result, lambda: state, verb, scope=self._bus.scope)
        except UnitFailed as error:
            raise unusable(error) from error

    async def _read(self, read: Callable[[], Result]) -> Result:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + READ_TIMEOUT
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
        for ends in self._ends.get(unit, ()):
            ends.heard(job, result)


class _NoEndError(Exception):
    """Nothing will be heard of a job any more."""

    def __init__(self, why: RbeeError) -> None:
        super().__init__(why)
        self.why = why.message


class _Ends:
    """The results of a unit's jobs that ended since."""

    def __init__(self) -> None:
        self._results: dict[str, str] = {}
        self._more = asyncio.Event()
        self._why_none: RbeeError | None = None

    def heard(self, job: str, result: str) -> None:
        self._results[job] = result
        self._more.set()

    def abandon(self, why: RbeeError) -> None:
        self._why_none = why
        self._more.set()

    async def result_of(self, job: str) -> str:
        """Wait for a job's end; `job` is its object path. Raises _NoEndError."""
        while job not in self._results:
            if self._why_none is not None:
                raise _NoEndError(self._why_none) from self._why_none
            self._more.clear()
            await self._more.wait()
        return self._results[job]
