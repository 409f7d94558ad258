"""rbee-fetch@.service as the hive sees it: played in the event loop, with a real store."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from rbee.errors import RbeeError
from rbee.files import write_whole
from rbee.modelfile.store import FetchResult, Meta, Store, StoreRequest, read_small, small
from rbee.narration import Event, Narrator
from rbee.scope import SYSTEM, Scope
from rbee.systemd.control import Verb
from rbee.systemd.unit import UnitState
from rbee.wire.models import Fetch, Head

INACTIVE = UnitState("loaded", "inactive", "dead")
RUNNING = UnitState("loaded", "active", "running")
FAILED = UnitState("loaded", "failed", "failed", result="exit-code", exit_status=69)
SUM = "5" * 64
HEAD = Head("gguf", "llama", 20)
URL = "https://ada:secret@example.org/bee.gguf"
FETCH = Fetch("one", "bee", URL)
UNIT = "rbee-fetch@one.service"


def scope_in(folder: Path) -> Scope:
    """A machine's scope with its state in a folder."""
    scope = SYSTEM._replace(state=folder)
    for path in (scope.hive_state, scope.models):
        path.mkdir(parents=True, exist_ok=True)
    return scope


class Tape(Narrator):
    def __init__(self) -> None:
        self.told: list[tuple[str, str, dict[str, str]]] = []

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        self.told.append((event.name, text, fields))


@dataclass
class Played:
    """Units and control at once. `program` is what the unit does with its request; it may wait."""

    scope: Scope
    states: dict[str, UnitState] = field(default_factory=lambda: defaultdict(lambda: INACTIVE))
    asked: list[tuple[str, str]] = field(default_factory=list)
    refusal: RbeeError | None = None
    hangs: bool = False

    def __post_init__(self) -> None:
        self.store = Store(self.scope.models)
        self._heard: defaultdict[str, list[Callable[[], None]]] = defaultdict(list)
        self._running: dict[str, asyncio.Task[None]] = {}
        self.program: Callable[[str, StoreRequest], Awaitable[UnitState]] = self.does

    def on_unit_changed(self, unit: str, heard: Callable[[], None]) -> None:
        self._heard[unit].append(heard)

    async def state(self, unit: str) -> UnitState:
        return self.states[unit]

    async def has_job(self, unit: str) -> bool:
        return False

    async def ask(self, verb: Verb, unit: str) -> str:
        self.asked.append((verb, unit))
        if self.refusal is not None:
            raise self.refusal
        if verb == "start":
            self.becomes(unit, RUNNING)
            request = read_small(self.scope.fetch_requests / self.name_of(unit), StoreRequest)
            assert request is not None
            self._running[unit] = asyncio.get_running_loop().create_task(self._run(unit, request))
        else:
            await self.end(unit)
        return ""

    async def _run(self, unit: str, request: StoreRequest) -> None:
        self.becomes(unit, await self.program(unit, request))

    async def end(self, unit: str, state: UnitState = INACTIVE) -> None:
        """The process ends."""
        if (task := self._running.pop(unit, None)) is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self.becomes(unit, state)

    async def close(self) -> None:
        for unit in [*self._running]:
            await self.end(unit)

    def becomes(self, unit: str, state: UnitState) -> None:
        self.states[unit] = state
        for heard in self._heard[unit]:
            heard()

    def tells(self, text: str, unit: str = UNIT) -> None:
        self.becomes(unit, self.states[unit]._replace(status_text=text))

    @staticmethod
    def name_of(unit: str) -> str:
        return unit.removeprefix("rbee-fetch@").removesuffix(".service")

    # What the program does

    async def does(self, unit: str, request: StoreRequest) -> UnitState:
        if self.hangs:
            await asyncio.Event().wait()
        if request.fetch is not None:
            self.put(request.fetch)
        if request.forget is not None:
            for path in (self.store.part(request.forget), self.store.result(request.forget)):
                path.unlink(missing_ok=True)
        if request.remove is not None:
            for path in sorted((self.store.folder / request.remove).rglob("*")):
                path.unlink()
            (self.store.folder / request.remove).rmdir()
        return INACTIVE

    async def waits(self, unit: str, request: StoreRequest) -> UnitState:
        """A fetch that goes on for ever; the rest is done."""
        if request.fetch is None:
            return await self.does(unit, request)
        self.store.fetches.mkdir(exist_ok=True)
        self.store.part(request.fetch.id).touch()
        await asyncio.Event().wait()
        raise AssertionError

    def put(self, fetch: Fetch) -> None:
        """The file of a fetch arrives."""
        path = self.store.new_file(SUM, "gguf")
        path.parent.mkdir(exist_ok=True)
        path.touch()
        write_whole(self.store.meta(SUM), small(Meta(SUM, 7, HEAD)), mode=0o644)
        self.note(fetch.id, FetchResult(fetch.model, "done", "", 7, SUM))

    def note(self, fetch_id: str, result: FetchResult) -> None:
        self.store.fetches.mkdir(exist_ok=True)
        write_whole(self.store.result(fetch_id), small(result), mode=0o644)
