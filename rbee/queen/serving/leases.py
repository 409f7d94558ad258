"""Leases: requests that a worker answers, or that wait for a worker."""

from __future__ import annotations

import asyncio
import math
import socket
from typing import TYPE_CHECKING, NamedTuple

from rbee.errors import NotServed, RbeeError, StillWaiting, Stopping, UnknownModel, UnknownWorker
from rbee.queen.serving.failures import Failures
from rbee.queen.serving.lease_connection import LeaseConnection
from rbee.queen.serving.parts import Parts
from rbee.queen.serving.refresh import Refresher
from rbee.queen.serving.start import Start
from rbee.queen.serving.starter import Starter
from rbee.queen.serving.workers import KnownWorkers, Worker
from rbee.wire.leases import Ask, Granted, Wait

if TYPE_CHECKING:
    from rbee.queen.store.models import ModelRow

CONNECT_TIMEOUT = 5.0
"""Seconds for a hive to connect to a worker."""

CONNECT_TRIES = 3
"""Attempts, for one request, to connect to a worker that was reported as ready."""

HOLD_MAX = 3600.0
"""The most seconds for which a request is held."""

RESUME_MAX = 30.0
"""Seconds for which a lease that is resumed waits until its hive has reported its workers."""

RETRY_S = 10
"""Retry-After of a refusal with 502 or 503, in seconds, unless a failed start gives another time."""


class _Found(NamedTuple):
    worker: Worker
    channel: socket.socket
    start: Start | None


class Leases:
    """All leases, from their request to their end."""

    def __init__(
        self,
        parts: Parts,
        known: KnownWorkers,
        starter: Starter,
        failures: Failures,
        refresher: Refresher,
    ) -> None:
        self._hives = parts.hives
        self._models = parts.models
        self._keys = parts.keys
        self._scope = parts.scope
        self._known = known
        self._starter = starter
        self._failures = failures
        self._refresher = refresher
        self._all: dict[LeaseConnection, Worker | None] = {}

    def connection(self) -> LeaseConnection:
        """Return the protocol for a new lease."""
        lease = LeaseConnection(self._serve, self._finished, self._ended)
        self._all[lease] = None
        return lease

    def cut(self) -> int:
        """Cut all leases, and return how many there were."""
        for lease in [one for one in self._all if one.is_idle]:
            lease.abandon()
        leases = list(self._all)
        for lease in leases:
            lease.cut(Stopping("rbee is being shut down"))
        return len(leases)

    def abandon(self) -> None:
        """Close all connections and cut nothing: the gateway resumes its leases with the next queen."""
        for lease in list(self._all):
            lease.abandon()

    def _finished(self, lease: LeaseConnection) -> None:
        worker = self._all.get(lease)
        if worker is not None:
            self._let_go(lease, worker)

    def _ended(self, lease: LeaseConnection) -> None:
        worker = self._all.pop(lease, None)
        if worker is not None:
            worker.end(lease)
            self._known.changes.announce()

    def _begin(self, lease: LeaseConnection, worker: Worker) -> None:
        self._all[lease] = worker
        worker.begin(lease)
        self._known.changes.announce()

    def _let_go(self, lease: LeaseConnection, worker: Worker) -> None:
        if lease in self._all:
            self._all[lease] = None
        worker.end(lease)
        self._known.changes.announce()

    # A request

    async def _serve(self, lease: LeaseConnection, ask: Ask) -> None:
        try:
            if ask.resume is not None:
                await lease.grant(await self._resume(lease, ask), None)
                return
            row = self._admit(ask, counts=True)
            deadline = asyncio.get_running_loop().time() + min(ask.hold_ms / 1000, HOLD_MAX)
            found = await self._find(lease, row.name, deadline)
        except RbeeError as error:
            lease.refuse(error, self._retry_s(ask.model, error))
            return
        start = found.start
        granted = Granted(found.worker.id, start is not None, None if start is None else start.job.id)
        await lease.grant(granted, found.channel)

    def _admit(self, ask: Ask, *, counts: bool) -> ModelRow:
        """Return the model's row. Raises BadKey, KeyNotForModel, UnknownModel or NotServed."""
        if ask.key is not None:
            self._keys.check(ask.key, ask.model, address=ask.address, counts=counts)
        return self._served(ask.model)

    def _served(self, name: str) -> ModelRow:
        model = self._models.find(name)
        if model is None:
            raise UnknownModel(
                f"there is no model '{name}'", hint=self._scope.rbeectl("model list"), field="model"
            )
        if not model.row.is_served:
            raise NotServed(
                f"the model {name} is not served", hint=self._scope.rbeectl(f"serve {name}"), field="model"
            )
        return model.row

    async def _resume(self, lease: LeaseConnection, ask: Ask) -> Granted:
        """Take over a lease that a previous queen has granted. Raises UnknownWorker, or as _admit()."""
        self._admit(ask, counts=False)
        assert ask.resume is not None
        worker_id = ask.resume
        try:
            await self._known.changes.until(
                lambda: self._known.find(worker_id) is not None,
                timeout=min(RESUME_MAX, max(1.0, ask.hold_ms / 1000)),
            )
        except TimeoutError:
            raise UnknownWorker(f"no hive has reported the worker {worker_id}") from None
        worker = self._known.find(worker_id)
        if worker is None or worker.seen.model != ask.model or worker.ending is not None:
            raise UnknownWorker(f"the worker {worker_id} does not serve {ask.model}, or is being stopped")
        self._begin(lease, worker)
        return Granted(worker.id, was_cold=False)

    async def _find(self, lease: LeaseConnection, name: str, deadline: float) -> _Found:
        """Return a worker and a connection to it, as soon as there is one; StillWaiting at the deadline."""
        tries = 0
        start = None
        while True:
            self._served(name)  # it may have changed while the request waited
            worker = self._ready(name)
            if worker is None:
                start = self._starter.join(name)
                await self._await(lease, start, deadline)
                continue
            self._begin(lease, worker)  # before connecting, so that it is not evicted meanwhile
            try:
                client = await self._hives.hive(worker.hive_id).reach()
                channel = await client.connect(worker.id, timeout=CONNECT_TIMEOUT)
            except RbeeError:
                self._let_go(lease, worker)
                tries += 1
                if tries >= CONNECT_TRIES:
                    raise
                await self._refresher.refresh(worker.hive_id)  # it has ended, or is loading again
            except BaseException:
                self._let_go(lease, worker)
                raise
            else:
                return _Found(worker, channel, start)

    def _ready(self, model: str) -> Worker | None:
        """Return the ready worker of the model that answers the fewest requests, or None."""
        ready = [one for one in self._known.of_model(model) if one.is_ready and self._is_online(one)]
        return min(ready, key=lambda one: len(one.leases), default=None)

    def _is_online(self, worker: Worker) -> bool:
        hive = self._hives.find(worker.hive_id)
        return hive is not None and hive.standing.is_online

    async def _await(self, lease: LeaseConnection, start: Start, deadline: float) -> None:
        """Wait for a start, and send how far it is. Raises its error, or StillWaiting."""
        loop = asyncio.get_running_loop()
        start.waiting += 1
        try:
            while not start.is_over:
                shown = start.text, start.percent
                lease.wait(Wait(start.text, start.percent, start.job.id))
                await start.progress.until(
                    lambda shown=shown: start.is_over or (start.text, start.percent) != shown,  # type: ignore[misc]
                    timeout=max(0.0, deadline - loop.time()),
                )
        except TimeoutError:
            raise StillWaiting(f"{start.model} is not awake yet: {start.text}") from None
        finally:
            start.waiting -= 1
            if not start.waiting:
                self._known.changes.announce()  # a start that waits for memory ends without requests
        if start.error is not None:
            raise start.error

    def _retry_s(self, model: str, error: RbeeError) -> int | None:
        if error.status not in (502, 503):
            return None
        return math.ceil(self._failures.pause(model)) or RETRY_S
