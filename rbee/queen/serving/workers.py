"""The workers of all hives, as far as the queen knows them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import count
from typing import TYPE_CHECKING, Protocol

from rbee.errors import RbeeError, WorkerFailed
from rbee.queen.changes import Changes
from rbee.queen.hives.liveness import Clocks
from rbee.queen.serving.need import context_of
from rbee.scope import worker_stem
from rbee.wire.workers import HiveWorker, WorkerState, WorkerView

if TYPE_CHECKING:
    from rbee.queen.store.models import ModelRow

SETTLING = 5.0
"""Seconds for which a worker of a previous queen counts as in use: the gateway resumes its leases by then."""

ID_LENGTH = 24
"""Most characters of a worker's id, which is part of the name of its system user."""


class Lease(Protocol):
    """A request that a worker answers."""

    def cut(self, reason: RbeeError) -> None:
        """End it, and its connection to the engine; the gateway gets the reason."""


class Awaited(Protocol):
    """The start of a worker, with the number of requests that wait for it."""

    waiting: int


class Worker:
    """A worker: the last report of its hive, and what the queen does with it.

    `last_used` is the monotonic second at which its last lease ended; `is_ours` is false if a previous queen
    started it. `has_former_file` is whether its model has been given another file since. `awaited` is its
    start, whose waiting requests it is about to answer. `ending` is the task that stops it, and `keep_until`
    the monotonic second before which the idle timer does not stop it again, as that has just failed.
    """

    def __init__(self, hive_id: str, seen: HiveWorker, clocks: Clocks, *, is_ours: bool) -> None:
        self.hive_id = hive_id
        self.seen = seen
        self.leases: set[Lease] = set()
        self.awaited: Awaited | None = None
        self.ending: asyncio.Task[None] | None = None
        self.last_used = self._known_since = clocks.monotonic()
        self.last_used_ms: int | None = None
        self.keep_until = 0.0
        self.has_former_file = False
        self._changed_ms = 0
        self.heard = 0
        """When its last report was received, in the order of KnownWorkers.asking()."""
        self._clocks = clocks
        self._is_ours = is_ours

    @property
    def id(self) -> str:
        """Its id."""
        return self.seen.id

    @property
    def is_ready(self) -> bool:
        """Does it take requests?"""
        return self.seen.state in ("ready", "busy") and self.ending is None

    def is_outdated(self, row: ModelRow) -> bool:
        """Is its model served with another file, context or engine by now?"""
        is_other = self.seen.context != context_of(row) or row.engine not in (None, self.seen.engine)
        return is_other or self.has_former_file

    @property
    def in_flight(self) -> int:
        """The requests that it answers or is about to; 1 until it is known whether it has any."""
        waiting = 0 if self.awaited is None else self.awaited.waiting
        return len(self.leases) + waiting or int(self._clocks.monotonic() < self.settles_at)

    @property
    def settles_at(self) -> float:
        """The monotonic second from which on it is known whether it has leases."""
        return self._known_since + (0.0 if self._is_ours else SETTLING)

    @property
    def state(self) -> WorkerState:
        """Its state as clients see it."""
        if self.ending is not None:
            return "stopping"
        if self.seen.state in ("ready", "busy"):
            return "busy" if self.leases else "ready"
        return self.seen.state

    @property
    def held_bytes(self) -> int:
        """The bytes of its pool that it uses, or has reserved."""
        return max(self.seen.claim_bytes, self.seen.used_bytes or 0)

    def begin(self, lease: Lease) -> None:
        """Count a lease."""
        if not self.leases:
            self.changed()
        self.leases.add(lease)
        self.last_used_ms = self._clocks.wall_ms()

    def end(self, lease: Lease) -> None:
        """Drop a lease that was counted."""
        self.leases.discard(lease)
        if not self.leases:
            self.changed()
        self.last_used = self._clocks.monotonic()
        self.last_used_ms = self._clocks.wall_ms()

    def changed(self) -> None:
        """Note that its state has changed by what the queen does with it."""
        self._changed_ms = self._clocks.wall_ms()

    def cut(self, reason: RbeeError) -> None:
        """Cut all its leases: llama-server does not end on SIGTERM while it streams an answer."""
        for lease in tuple(self.leases):
            lease.cut(reason)

    def view(self, *, is_pinned: bool, is_known: bool, why_unknown: str = "") -> WorkerView:
        """Return the worker as clients see it; `is_known` is false if its hive is not online."""
        seen = self.seen
        return WorkerView(
            id=seen.id,
            model=seen.model,
            hive_id=self.hive_id,
            state=self.state if is_known else "unknown",
            reason=seen.reason if is_known else why_unknown,
            since_ms=max(seen.since_ms, self._changed_ms),
            percent=seen.percent if is_known else None,
            in_flight=len(self.leases),
            engine=seen.engine,
            pool=seen.pool,
            context=seen.context,
            claim_bytes=seen.claim_bytes,
            used_bytes=seen.used_bytes,
            peak_bytes=seen.peak_bytes,
            pid=seen.pid,
            is_pinned=is_pinned,
            last_used_ms=self.last_used_ms,
            log=seen.log,
        )


class KnownWorkers:
    """All workers. `changes` is announced with each change of one, or of its leases."""

    def __init__(self, clocks: Clocks, changes: Changes) -> None:
        self._clocks = clocks
        self.changes = changes
        self._workers: dict[tuple[str, str], Worker] = {}
        self._requests = count(1)
        self._numbers: dict[str, int] = {}
        self._ended_ms: dict[str, int] = {}

    def all(self) -> list[Worker]:
        """Return all workers, by hive and id."""
        return [worker for _, worker in sorted(self._workers.items())]

    def of_model(self, model: str) -> list[Worker]:
        """Return the workers of a model."""
        return [worker for worker in self.all() if worker.seen.model == model]

    def find(self, worker_id: str, hive_id: str | None = None) -> Worker | None:
        """Return the worker of this id, or None."""
        return next(
            (
                worker
                for worker in self._workers.values()
                if worker.id == worker_id and hive_id in (None, worker.hive_id)
            ),
            None,
        )

    def take(self, hive_id: str, seen: HiveWorker, *, is_ours: bool = False) -> Worker:
        """Take a report about one worker, and return the worker; a report older than its last is ignored."""
        worker = self._workers.get((hive_id, seen.id))
        if worker is None:
            worker = self._workers[hive_id, seen.id] = Worker(hive_id, seen, self._clocks, is_ours=is_ours)
        elif seen.serial >= worker.seen.serial:
            worker.seen = seen
        worker.heard = next(self._requests)
        self.changes.announce()
        return worker

    def asking(self) -> int:
        """Return the number of a request for all workers of a hive, to be given to take_all()."""
        return next(self._requests)

    def take_all(self, hive_id: str, workers: Iterable[HiveWorker], number: int) -> None:
        """Take a report about all workers of a hive: others have gone, unless they came after the request."""
        reported = {seen.id: seen for seen in workers}
        for worker in self.all():
            if worker.hive_id == hive_id and worker.id not in reported and worker.heard < number:
                self.drop(worker)
        for seen in reported.values():
            self.take(hive_id, seen)
        self.changes.announce()  # even if it has none: the hive is back

    def drop(self, worker: Worker) -> None:
        """Forget a worker that has ended, and cut its leases."""
        if self._workers.get((worker.hive_id, worker.id)) is worker:
            del self._workers[worker.hive_id, worker.id]
            self._ended_ms[worker.seen.model] = self._clocks.wall_ms()
            why = f": {worker.seen.reason}" if worker.seen.reason else ""
            worker.cut(WorkerFailed(f"the worker {worker.id} has ended{why}"))
            self.changes.announce()

    def model_replaced(self, model: str) -> None:
        """Note that a model has another file: its workers end when they are idle, and teach nothing."""
        for worker in self.of_model(model):
            worker.has_former_file = True
        self.changes.announce()

    def ended_ms(self, model: str) -> int:
        """Return when the last worker of a model ended, in ms since 1970; 0 if this queen saw none end."""
        return self._ended_ms.get(model, 0)

    def forget_hive(self, hive_id: str) -> None:
        """Forget the workers of a hive that was removed."""
        for worker in self.all():
            if worker.hive_id == hive_id:
                self.drop(worker)

    def new_id(self, model: str) -> str:
        """Return an id for a new worker: the model's name and a number that none has had yet."""
        base = worker_stem(model)
        taken = [worker.id for worker in self._workers.values() if worker.id.startswith(f"{base}-")]
        numbers = [int(one) for one in (name[len(base) + 1 :] for name in taken) if one.isdecimal()]
        self._numbers[base] = number = max([*numbers, self._numbers.get(base, 0)]) + 1
        return f"{base}-{number}"[-ID_LENGTH:]
