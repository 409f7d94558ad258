"""Snapshots for placement: the memory and engines of hives, asked for now, and the known workers."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from rbee.errors import HiveNotOnline, RbeeError
from rbee.queen.hives.engines import AT_ONCE, TIMEOUT
from rbee.queen.hives.hive import Hive
from rbee.queen.hives.hives import Hives
from rbee.queen.models.models import Models
from rbee.queen.serving.placement import HiveNow, Snapshot, WorkerNow
from rbee.queen.serving.workers import KnownWorkers, Worker
from rbee.wire.workers import Memory


class Snapshots:
    """Takes snapshots of the fleet."""

    def __init__(self, hives: Hives, known: KnownWorkers, models: Models) -> None:
        self._hives = hives
        self._known = known
        self._models = models
        self._turns = asyncio.Semaphore(AT_ONCE)

    async def take(self, only: Collection[str] | None = None) -> Snapshot:
        """Return a snapshot. With `only`, other hives are not asked: they cannot be chosen anyway."""
        hives = [hive for name in self._hives.names if (hive := self._hives.find(name)) is not None]
        asked = await asyncio.gather(
            *(self._hive(hive, is_asked=only is None or hive.id in only) for hive in hives)
        )
        # Only now, as leases come and go meanwhile.
        return Snapshot(tuple(asked), self.workers())

    async def memory(self, hive_id: str) -> Memory:
        """Return a hive's memory book. Raises UnknownHive, HiveNotOnline, or as HiveClient.memory()."""
        hive = self._hives.hive(hive_id)
        life = hive.standing.life
        if not hive.standing.is_online:
            raise HiveNotOnline(f"the beehive {hive_id} is {life.state}: {life.reason}", hint=hive.hint)
        return await (await hive.reach()).memory(timeout=TIMEOUT)

    def workers(self) -> tuple[WorkerNow, ...]:
        """Return the known workers; those of a hive that is not online are 'unknown'."""
        return tuple(self._worker(worker) for worker in self._known.all())

    def _worker(self, worker: Worker) -> WorkerNow:
        hive, model = self._hives.find(worker.hive_id), self._models.find(worker.seen.model)
        state = "ready" if worker.is_ready else worker.state
        return WorkerNow(
            worker.id,
            worker.seen.model,
            worker.hive_id,
            worker.seen.pool,
            state if hive is not None and hive.standing.is_online else "unknown",
            worker.held_bytes,
            worker.in_flight,
            model is not None and model.row.is_served and model.row.is_pinned,
            worker.last_used,
        )

    async def _hive(self, hive: Hive, *, is_asked: bool) -> HiveNow:
        standing = hive.standing
        life, row = standing.life, standing.row
        if not standing.is_online:
            # A hive that is desired is started by the queen, or by systemd, or dials again.
            reason = f"the beehive is {life.state}: {life.reason}"
            return HiveNow(hive.id, problem=reason, may_recover=row.wanted or life.state == "pending")
        if row.cordoned is not None:
            return HiveNow(hive.id, problem=f"it is cordoned: {row.cordoned}")
        if not is_asked:
            return HiveNow(hive.id)
        try:
            async with self._turns:
                client = await hive.reach()
                memory, engines = await asyncio.gather(
                    client.memory(timeout=TIMEOUT), client.engines(timeout=TIMEOUT)
                )
        except RbeeError as error:
            return HiveNow(hive.id, problem=f"it did not answer: {error.message}", may_recover=True)
        return HiveNow(hive.id, memory.pools, engines.engines)
