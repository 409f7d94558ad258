"""All workers of a hive: starts and stops them, and adopts those of an earlier hive process."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from pathlib import Path
from typing import Self

from rbee.engines.dropins import Found, load
from rbee.engines.engine import TCP_PORT, Engine, Task
from rbee.engines.order import Order
from rbee.errors import (
    EngineUnusable,
    NotPermitted,
    RbeeError,
    TooMany,
    UnknownEngine,
    UnknownWorker,
    WorkerExists,
    WorkerNotReady,
)
from rbee.hive.memory.book import Book
from rbee.hive.threads import in_daemonic_thread
from rbee.hive.units import Units
from rbee.hive.work import Work
from rbee.hive.workers.connect import connect_to
from rbee.hive.workers.enginelog import EngineLog
from rbee.hive.workers.life import Life, Parts
from rbee.hive.workers.place import Detector, place_of
from rbee.hive.workers.specification import MODEL, Specifications
from rbee.hive.workers.worker import Worker
from rbee.narration import WORKER_ADOPTED, Narrator
from rbee.scope import Scope, worker_unit
from rbee.wire.workers import WORKERS_MAX, HiveWorker, HiveWorkers, StartWorker

log = logging.getLogger("rbee")

SOCKET = "engine.sock"
"""The engine's socket, in the worker's runtime directory. llama-server takes a --host in .sock for a path."""


class Workers:
    """The workers from their start until they have stopped; a failed one is kept until it is stopped."""

    def __init__(self, parts: Parts, detector: Detector, root: Path = Path("/")) -> None:
        self._parts = parts
        self._scope = parts.scope
        self._detector = detector
        self._root = root
        self._lives: dict[str, Life] = {}

    @classmethod
    async def open(
        cls,
        scope: Scope,
        folder: Path,
        book: Book,
        units: Units,
        narrator: Narrator,
        work: Work,
        detector: Detector,
        engine_journal: Narrator,
    ) -> Self:
        """Return the workers, after adopting those that already run.

        `folder` has their specifications, and `engine_journal` takes what engines print.
        """
        engine_log = EngineLog(units, engine_journal)
        parts = Parts(scope, Specifications(folder), book, units, narrator, work, engine_log)
        workers = cls(parts, detector)
        try:
            await workers.adopt()
        except BaseException:
            await workers.close()  # some may be followed already
            raise
        return workers

    # What there is

    def all(self) -> HiveWorkers:
        """Return all workers, by id."""
        return HiveWorkers(
            tuple(self.view(self._lives[worker_id].worker) for worker_id in sorted(self._lives))
        )

    def find(self, worker_id: str) -> Worker:
        """Return the worker with this id. Raises UnknownWorker."""
        return self._life(worker_id).worker

    def view(self, worker: Worker) -> HiveWorker:
        """Return a worker as the hive reports it, with the memory that it uses."""
        return worker.view(*self._parts.book.used(worker.id))

    # Start

    async def start(self, start: StartWorker, job_id: str | None = None) -> Worker:
        """Start a worker, and return it while it loads.

        Raises WorkerExists, TooMany, UnknownEngine, EngineUnusable, BadInput, NoMemory, CardLoads or
        NotPermitted, RbeeError if the specification cannot be written, and as Life.start().
        """
        self._check_scope()
        if start.id in self._lives:
            raise WorkerExists(f"the worker {start.id} already exists and is {self.find(start.id).state}")
        if len(self._lives) >= WORKERS_MAX:
            raise TooMany(f"this hive has {WORKERS_MAX} workers, the limit", hint="Stop one of them.")
        worker = Worker(start, self._parts.work.serials, job_id=job_id)
        # Before the first await, so that no other start takes the id meanwhile.
        life = self._lives[start.id] = Life(worker, self._parts, self._forget)
        await life.start(lambda: self._prepare(worker, job_id))
        return worker

    async def _prepare(self, worker: Worker, job_id: str | None) -> None:
        """Claim the worker's memory, and write what its unit reads."""
        start = worker.start
        engine = await in_daemonic_thread(lambda: self._usable(start))
        worker.fills_claim = engine.uses("f")
        order = await self._order(start, engine, job_id)
        await self._parts.book.claim(start.id, start.pool, start.claim_bytes)
        writing = asyncio.ensure_future(
            in_daemonic_thread(lambda: self._parts.specifications.write(start, order))
        )
        try:
            await asyncio.shield(writing)
        except asyncio.CancelledError:
            # The thread goes on even so, and would write what is removed meanwhile.
            await asyncio.gather(writing, return_exceptions=True)
            raise

    async def stop(self, worker_id: str) -> Worker:
        """Stop a worker, or remove a failed one. Raises UnknownWorker, and as Life.stop()."""
        life = self._life(worker_id)
        await life.stop()
        return life.worker

    async def connect(self, worker_id: str) -> socket.socket:
        """Return a connection to a worker's engine. Raises UnknownWorker or WorkerNotReady."""
        worker = self.find(worker_id)
        if worker.state != "ready":
            why = f": {worker.reason}" if worker.reason else ""
            raise WorkerNotReady(f"the worker {worker_id} is {worker.state}{why}")
        return await connect_to(self._scope.worker_runtime / worker_id / SOCKET, worker_id)

    async def _order(self, start: StartWorker, engine: Engine, job_id: str | None) -> Order:
        place = await place_of(start.pool, self._detector)
        runtime = self._scope.worker_runtime / start.id
        model, path = runtime / MODEL, runtime / SOCKET
        task = Task(
            model, path, start.model, start.context, start.slots, place.threads, place.uuid,
            start.claim_bytes, place.total,
        )  # fmt: skip
        return Order(
            name=start.model,
            engine=engine.name,
            argv=tuple(engine.argv(task)),
            environment=tuple(engine.variables(task).items()),
            model=model,
            path=start.path,
            socket=path,
            ready=engine.ready,
            size=start.bytes,
            job_id=job_id,
            port=TCP_PORT if engine.socket == "tcp" else None,
        )

    def _usable(self, start: StartWorker) -> Engine:
        found = self._found()
        engine = found.engines.get(start.engine)
        hint = self._scope.rbeectl("list-engines")
        if engine is None:
            refused = [one for one in found.problems if f"/{start.engine}.conf" in one]
            why = f": {refused[0]}" if refused else ""
            raise UnknownEngine(f"this hive has no engine {start.engine}{why}", hint=hint, field="engine")
        if start.format not in engine.formats:
            raise UnknownEngine(
                f"the engine {engine.name} serves {' and '.join(engine.formats)}, not {start.format}",
                hint=hint,
                field="engine",
            )
        if problem := engine.problem(self._root):
            raise EngineUnusable(f"{engine.name} cannot be used: {problem}", hint=hint, field="engine")
        return engine

    def _found(self) -> Found:
        return load(self._scope, self._root)

    def _check_scope(self) -> None:
        if self._scope.kind == "user":
            raise NotPermitted(
                "a user's own rbee cannot start workers: only the machine's has their units and accounts",
                hint="Use the machine's rbee, without --user.",
            )

    # Adopt

    async def adopt(self) -> None:
        """Adopt the running workers of an earlier hive process, and stop those without a specification."""
        if self._scope.kind == "user":
            return
        starts = list(self._parts.specifications.read())
        engines = (await in_daemonic_thread(self._found)).engines if starts else {}
        for start in starts:
            await self._adopt(start, engines.get(start.engine))
        for name in self._running() - self._lives.keys():
            log.warning("the worker %s runs without a specification and is being stopped", name)
            try:
                await self._parts.units.stop(worker_unit(name))
            except RbeeError as error:
                log.error("the worker %s could not be stopped: %s", name, error)
        if self._lives:
            self._parts.work.changed()

    async def _adopt(self, start: StartWorker, engine: Engine | None) -> None:
        try:
            state = await self._parts.units.state(worker_unit(start.id))
        except RbeeError as error:
            log.warning("the worker %s is adopted before its state is known: %s", start.id, error)
            state = None
        if state is not None and state.active == "inactive":
            # It has ended meanwhile, or the machine was rebooted.
            self._parts.specifications.remove(start.id)
            return
        worker = Worker(start, self._parts.work.serials)
        worker.fills_claim = engine is None or engine.uses("f")  # if unknown, rather learn nothing from it
        life = self._lives[start.id] = Life(worker, self._parts, self._forget)
        is_ready = state is not None and state.is_active
        self._parts.book.adopt(start.id, start.pool, start.claim_bytes, loads=not is_ready)
        if state is not None and is_ready:
            worker.change("ready", pid=state.main_pid or None)
            text = f"{start.model} runs as the worker {start.id}, and is adopted"
            self._parts.narrator.narrate(WORKER_ADOPTED, text, **life.fields())
        life.begin(is_new=False)

    def _running(self) -> set[str]:
        """Return the workers that have a runtime directory: systemd removes it when they end."""
        try:
            return set(os.listdir(self._scope.worker_runtime))
        except OSError:
            return set()

    # The end

    async def close(self) -> None:
        """Stop following the workers, which continue."""
        await asyncio.gather(*(life.end() for life in list(self._lives.values())))
        await self._parts.engine_log.close()

    def _life(self, worker_id: str) -> Life:
        life = self._lives.get(worker_id)
        if life is None:
            raise UnknownWorker(
                f"this hive has no worker {worker_id}", hint=self._scope.rbeectl("list-workers")
            )
        return life

    def _forget(self, worker: Worker) -> None:
        life = self._lives.get(worker.id)
        if life is not None and life.worker is worker:
            del self._lives[worker.id]
