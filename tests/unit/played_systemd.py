"""systemd, played: it stands where Bus and Control of rbee.systemd stand, and signals by a descriptor."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Protocol, Self

from rbee.errors import RbeeError, Stopping
from rbee.keeper.doctor.polkit import POLKIT
from rbee.scope import (
    CONTROL_SOCKET_UNIT,
    GATEWAY_SOCKET_UNIT,
    GATEWAY_TCP_SOCKET_UNIT,
    GATEWAY_UNIT,
    HIVE_SOCKET_UNIT,
    HIVE_UNIT,
    QUEEN_SOCKET_UNIT,
    QUEEN_UNIT,
    SYSTEM,
    TARGET,
    TCP_SOCKET_UNIT,
    Scope,
)
from rbee.systemd.control import Control, Verb
from rbee.systemd.unit import UnitState
from rbee.wire.heartbeats import MachineEnd

NOT_FOUND = UnitState("not-found", "inactive", "dead")
INACTIVE = UnitState("loaded", "inactive", "dead", result="success")
ACTIVATING = UnitState("loaded", "activating", "start", result="success")
ACTIVE = UnitState("loaded", "active", "running", result="success", main_pid=4711)
DEACTIVATING = UnitState("loaded", "deactivating", "stop-sigterm", result="success")
LISTENING = UnitState("loaded", "active", "listening", result="success")
KILLED = UnitState("loaded", "activating", "auto-restart", result="signal", exit_status=9)


class DiedError(Exception):
    """A program did not come up; `state` is what its unit is then."""

    def __init__(self, state: UnitState) -> None:
        self.state = state


class Program(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


class NoProgram:
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


@dataclass
class PlayedUnits:
    """The states of systemd's units: those in `states`, and `otherwise` for any other unit."""

    scope: Scope = field(default=SYSTEM, kw_only=True)
    states: dict[str, UnitState] = field(default_factory=dict)

    otherwise: ClassVar = INACTIVE

    def state(self, unit: str) -> UnitState:
        return self.states.get(unit, self.otherwise)

    def active_state(self, unit: str) -> str:
        return self.state(unit).active

    def has_job(self, unit: str) -> bool:
        return False


@dataclass
class PlayedBus(PlayedUnits):
    """A bus for programs that have no event loop, with what they ask of it in `asked`."""

    states: dict[str, UnitState] = field(
        default_factory=lambda: {
            QUEEN_UNIT: INACTIVE,
            QUEEN_SOCKET_UNIT: LISTENING,
            HIVE_UNIT: INACTIVE,
            HIVE_SOCKET_UNIT: LISTENING,
            TCP_SOCKET_UNIT: INACTIVE,
            CONTROL_SOCKET_UNIT: LISTENING,
            GATEWAY_UNIT: INACTIVE,
            GATEWAY_SOCKET_UNIT: LISTENING,
            GATEWAY_TCP_SOCKET_UNIT: INACTIVE,
            POLKIT: ACTIVE,
        }
    )
    asked: list[tuple[str, str]] = field(default_factory=list)
    opened: int = 0
    refusals: dict[tuple[str, str], RbeeError] = field(default_factory=dict)
    """By verb and unit, as in `asked`; ("ping", NAME) is for a bus name, ("open", "") for the connection."""
    passing: dict[tuple[str, str], RbeeError] = field(default_factory=dict)
    """Refusals that are given once."""
    after: dict[tuple[str, str], UnitState] = field(default_factory=dict)
    """What a unit is after a refusal."""
    later: dict[str, list[UnitState]] = field(default_factory=dict)
    """What units become while somebody waits."""
    unstoppable: set[str] = field(default_factory=set)
    after_stop: dict[str, UnitState] = field(default_factory=dict)
    """What a unit is after it was stopped, if not inactive."""
    files: dict[str, tuple[str, bool]] = field(default_factory=dict)
    access: tuple[str, str, int] = ("", "", 0o660)
    address: str = "[::]:8500"
    pinged: list[str] = field(default_factory=list)
    ending: MachineEnd | None = None

    def __call__(self, scope: Scope, *, timeout: float = 1.0) -> Self:
        assert timeout > 0
        self.scope = scope
        return self

    def __enter__(self) -> Self:
        self.opened += 1
        if ("open", "") in self.refusals:
            raise self.refusals["open", ""]
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def await_state(self, unit: str, is_awaited: Callable[[UnitState], bool], *, timeout: float) -> UnitState:
        assert timeout > 0
        while not is_awaited(self.state(unit)) and self.later.get(unit):
            self.states[unit] = self.later[unit].pop(0)
        return self.state(unit)

    def await_idle(self, units: object, *, timeout: float) -> None:
        pass

    def machine_end(self, **_within: float) -> MachineEnd | None:
        return self.ending

    def listen_addresses(self, unit: str) -> list[tuple[str, str]]:
        return [("Stream", self.address)]

    def file_state(self, unit: str) -> tuple[str, bool]:
        return self.files.get(unit, ("enabled", False))

    def socket_access(self, unit: str) -> tuple[str, str, int]:
        return self.access

    def ping(self, name: str) -> None:
        self.pinged.append(name)
        if ("ping", name) in self.refusals:
            raise self.refusals["ping", name]

    def ping_polkit(self) -> None:
        self.ping("org.freedesktop.PolicyKit1")

    def reset_failed(self, unit: str) -> None:
        self._do("reset-failed", unit)
        if not self.state(unit).is_active:
            self.states[unit] = INACTIVE

    def start(self, unit: str, *, timeout: float, undo_stop: bool = True) -> None:
        self._do("start" if undo_stop else "start unless stopping", unit)
        self.states[unit] = ACTIVE

    def restart(self, unit: str, *, timeout: float) -> None:
        self._do("restart", unit)
        self.states[unit] = ACTIVE

    def ask_start(self, unit: str) -> None:
        self._do("ask start", unit)

    def ask_stop(self, unit: str) -> None:
        self._do("ask stop", unit)

    def stop(self, unit: str, *, timeout: float) -> None:
        self._do("stop", unit)
        self.states[unit] = self.after_stop.get(unit, INACTIVE)
        if unit == TARGET:
            for one in set(self.states) - self.unstoppable:
                self.states[one] = INACTIVE

    def _do(self, verb: str, unit: str) -> None:
        if (passing := self.passing.pop((verb, unit), None)) is not None:
            raise passing
        self.asked.append((verb, unit))
        if (verb, unit) in self.refusals:
            self.states[unit] = self.after.get((verb, unit), self.state(unit))
            raise self.refusals[verb, unit]


@dataclass
class PlayedSystemd(PlayedUnits, Control):
    """`asked` is what was asked of it; `refusal` is raised at the next request for a job."""

    otherwise: ClassVar = NOT_FOUND

    states: dict[str, UnitState] = field(default_factory=lambda: {HIVE_UNIT: INACTIVE, QUEEN_UNIT: ACTIVE})
    programs: defaultdict[str, Program] = field(default_factory=lambda: defaultdict(NoProgram))
    asked: list[tuple[str, str]] = field(default_factory=list)
    refusal: RbeeError | None = None
    ending: MachineEnd | None = None

    def __post_init__(self) -> None:
        self._jobs: dict[str, tuple[str, str]] = {}
        self._numbers = iter(range(1, 1_000_000))
        self._signals: deque[Callable[[], None]] = deque()
        self._job_heard: list[Callable[[str, str, str], None]] = []
        self._unit_heard: defaultdict[str, list[Callable[[], None]]] = defaultdict(list)
        self._tasks: set[asyncio.Task[None]] = set()
        self._descriptor = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    # What the product asks

    def machine_end(self) -> MachineEnd | None:
        return self.ending

    def has_job(self, unit: str) -> bool:
        return unit in {one for one, _ in self._jobs.values()}

    def ask_start(self, unit: str) -> str:
        return self._ask("start", unit, self._start)

    async def ask(self, verb: Verb, unit: str) -> str:
        """As Control: a start takes no stop's place, neither the unit's nor its queen's."""
        if verb == "reset-failed":
            self.reset_failed(unit)
            return ""
        is_stopping = not {(unit, "stop"), (QUEEN_UNIT, "stop")}.isdisjoint(self._jobs.values())
        if verb == "start" and is_stopping:
            self.asked.append(("start", unit))
            raise Stopping(f"starting {unit}: it is being stopped")
        return self.ask_start(unit) if verb == "start" else self.ask_stop(unit)

    def reset_failed(self, unit: str) -> None:
        self.asked.append(("reset-failed", unit))
        self.becomes(unit, INACTIVE)

    def ask_stop(self, unit: str) -> str:
        return self._ask("stop", unit, self._stop)

    def on_job_removed(self, heard: Callable[[str, str, str], None]) -> None:
        self._job_heard.append(heard)

    def on_unit_changed(self, unit: str, heard: Callable[[], None]) -> None:
        self._unit_heard[unit].append(heard)

    def fileno(self) -> int:
        return self._descriptor

    def pump(self) -> None:
        try:
            os.eventfd_read(self._descriptor)
        except BlockingIOError:
            return
        while self._signals:
            self._signals.popleft()()

    # What happens in the world

    def job(self, unit: str, verb: str) -> str:
        """A job that somebody else queued."""
        path = f"/org/freedesktop/systemd1/job/{next(self._numbers)}"
        self._jobs[path] = unit, verb
        return path

    def remove_job(self, path: str, result: str = "done") -> None:
        unit, _ = self._jobs.pop(path)
        for heard in self._job_heard:
            self._signal(partial(heard, path, unit, result))

    def becomes(self, unit: str, state: UnitState) -> None:
        self.states[unit] = state
        for heard in self._unit_heard[unit]:
            self._signal(heard)

    async def start_by_hand(self, unit: str) -> None:
        path = self.job(unit, "start")
        self.remove_job(path, await self._start(unit))

    async def stop_by_hand(self, unit: str) -> None:
        path = self.job(unit, "stop")
        self.remove_job(path, await self._stop(unit))
        # The unit's Job property changes too.
        self.becomes(unit, self.states[unit])

    def hang_up(self) -> None:
        """Whoever listened has gone, and with it the connection to the bus."""
        self._job_heard.clear()
        self._unit_heard.clear()
        self._signals.clear()

    async def end(self) -> None:
        """Give up what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def close(self) -> None:
        await self.end()
        os.close(self._descriptor)

    def _ask(self, verb: str, unit: str, work: Callable[[str], Coroutine[Any, Any, str]]) -> str:
        self.asked.append((verb, unit))
        if self.refusal is not None:
            refusal, self.refusal = self.refusal, None
            raise refusal
        path = self.job(unit, verb)

        async def run() -> None:
            self.remove_job(path, await work(unit))

        task = asyncio.get_running_loop().create_task(run())
        self._tasks.add(task)
        return path

    async def _start(self, unit: str) -> str:
        if self.state(unit).is_active:
            return "done"
        self.becomes(unit, ACTIVATING)
        try:
            await self.programs[unit].start()
        except DiedError as died:
            self.becomes(unit, died.state)
            return "failed"
        self.becomes(unit, ACTIVE)
        return "done"

    async def _stop(self, unit: str) -> str:
        if not self.state(unit).is_stopped:
            self.becomes(unit, DEACTIVATING)
            await self.programs[unit].stop()
            self.becomes(unit, INACTIVE)
        return "done"

    def _signal(self, tell: Callable[[], None]) -> None:
        self._signals.append(tell)
        os.eventfd_write(self._descriptor, 1)
