"""What is around workers, played: their units, the memory book, the devices, and an engine that is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from rbee.errors import RbeeError
from rbee.hive.memory.book import Book
from rbee.hive.work import Serials, Work
from rbee.hive.workers.enginelog import EngineLog
from rbee.hive.workers.life import Parts
from rbee.hive.workers.specification import Specifications
from rbee.hive.workers.workers import Workers
from rbee.narration import Event, Narrator
from rbee.scope import SYSTEM, Scope
from rbee.systemd.journal import Tail
from rbee.systemd.unit import UnitState
from rbee.wire.devices import Cpu, Devices
from rbee.wire.workers import Holder, StartWorker

START = StartWorker("bee-1", "bee", "test", "/srv/bee.gguf", "gguf", 4096, "ram", 2**30, bytes=7)
UNIT = "rbee-worker@bee-1.service"
JOB = "7" * 32

INACTIVE = UnitState("loaded", "inactive", "dead", result="success")
LOADING = UnitState("loaded", "activating", "start", result="success", main_pid=7)
READY = UnitState("loaded", "active", "running", result="success", main_pid=7)
AGAIN = UnitState("loaded", "activating", "auto-restart", result="exit-code", exit_status=1, restarts=1)
FAILED = UnitState("loaded", "failed", "failed", result="exit-code", exit_status=1, restarts=3)


@dataclass
class PlayedUnits:
    """systemd: units are `states`; `asked` is what was asked of it, and `refusal` what it answers next."""

    states: dict[str, UnitState] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    refusal: RbeeError | None = None
    tail: Tail = Tail()
    silent: int = 0
    """So many questions are not answered."""
    stopped: UnitState = INACTIVE
    """How a unit is once it was stopped."""
    starts_late: asyncio.Event | None = None
    """What a start waits for before the unit changes."""
    looks: int = 0

    def __post_init__(self) -> None:
        self.followed: dict[str, asyncio.Event] = {}
        self.time: tuple[float, float] | None = None
        self.started: dict[str, asyncio.Event] = {}

    def becomes(self, unit: str, state: UnitState) -> None:
        self.states[unit] = state
        if unit in self.followed:
            self.followed[unit].set()
        if state.active in ("active", "failed") or state == INACTIVE:
            self.started.setdefault(unit, asyncio.Event()).set()

    async def state(self, unit: str) -> UnitState:
        if self.silent:
            self.silent -= 1
            raise RbeeError("systemd is silent")
        self.looks += 1
        return self.states.get(unit, INACTIVE)

    async def start(self, unit: str) -> None:
        self._ask("start", unit)
        if self.starts_late is not None:
            await self.starts_late.wait()
        self.started[unit] = asyncio.Event()
        self.becomes(unit, LOADING)
        await self.started[unit].wait()

    async def stop(self, unit: str) -> None:
        self._ask("stop", unit)
        if self.states.get(unit, INACTIVE).active != "failed":
            self.becomes(unit, self.stopped)

    async def reset_failed(self, unit: str) -> None:
        self._ask("reset-failed", unit)
        self.becomes(unit, INACTIVE)

    async def log(self, unit: str, time: tuple[float, float] | None = None) -> Tail:
        self.time = time
        return self.tail

    def follow(self, unit: str) -> asyncio.Event:
        return self.followed.setdefault(unit, asyncio.Event())

    def unfollow(self, unit: str) -> None:
        self.followed.pop(unit, None)

    def _ask(self, verb: str, unit: str) -> None:
        self.asked.append((verb, unit))
        if self.refusal is not None:
            refusal, self.refusal = self.refusal, None
            raise refusal


@dataclass
class PlayedBook:
    """The memory book: `claims` by worker; `refusal` is the answer to the next claim."""

    claims: dict[str, int] = field(default_factory=dict)
    loads: set[str] = field(default_factory=set)
    refusal: RbeeError | None = None
    holder: Holder | None = None
    looked_at: list[str] = field(default_factory=list)
    before_claim: Callable[[], Awaitable[object]] | None = None
    """What is awaited before a claim is answered."""

    async def claim(self, worker_id: str, pool: str, claim_bytes: int) -> None:
        if self.before_claim is not None:
            await self.before_claim()
        if self.refusal is not None:
            raise self.refusal
        self.adopt(worker_id, pool, claim_bytes, loads=True)

    def adopt(self, worker_id: str, pool: str, claim_bytes: int, *, loads: bool = False) -> None:
        self.claims[worker_id] = claim_bytes
        if loads:
            self.loads.add(worker_id)

    async def loaded(self, worker_id: str) -> None:
        self.loads.discard(worker_id)

    async def look(self, worker_id: str) -> None:
        self.looked_at.append(worker_id)

    def release(self, worker_id: str) -> None:
        self.claims.pop(worker_id, None)
        self.loads.discard(worker_id)

    async def proven_free(self, worker_id: str, worker_pids: Iterable[int] = ()) -> Holder | None:
        return self.holder

    def used(self, worker_id: str) -> tuple[int | None, int | None]:
        return (1, 2) if worker_id in self.claims else (None, None)


class Tape(Narrator):
    """What was narrated: event, text and fields."""

    def __init__(self) -> None:
        self.told: list[tuple[str, str, dict[str, str]]] = []

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        self.told.append((event.name, text, fields))

    @property
    def events(self) -> list[str]:
        return [name for name, _, _ in self.told]


class PlayedMachine:
    latest = Devices(Cpu("a cpu", 1, 2, 4, 16 * 2**30))

    def detect(self) -> Devices:
        return self.latest


class Hive:
    """The workers of a hive, in the folder `root`, with an engine 'test'."""

    def __init__(self, root: Path, units: PlayedUnits | None = None, scope: Scope | None = None) -> None:
        self.root = root
        self.units, self.book, self.tape = units or PlayedUnits(), PlayedBook(), Tape()
        self.engine_tape = Tape()
        self.changes = 0
        self.scope = scope or SYSTEM
        dropin = root / "etc/rbee/engines.d/test.conf"
        dropin.parent.mkdir(parents=True, exist_ok=True)
        dropin.write_text("[Engine]\nExec=/bin/engine %m %s %a %c\nFormats=gguf\nEnvironment=A=%a\n")
        program = root / "bin/engine"
        program.parent.mkdir(exist_ok=True)
        program.touch()
        program.chmod(0o755)
        self.folder = root / "workers"
        self.parts = Parts(
            self.scope,
            Specifications(self.folder),
            cast(Book, self.book),
            self.units,
            self.tape,
            Work(Serials(), self._changed),
            EngineLog(self.units, self.engine_tape),
        )
        self.machine = PlayedMachine()
        self.workers = Workers(self.parts, self.machine, root)

    def _changed(self) -> None:
        self.changes += 1

    async def __aenter__(self) -> Hive:
        return self

    async def __aexit__(self, *_error: Any) -> None:
        await self.workers.close()
