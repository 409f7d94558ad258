"""Stops workers: cuts their leases first, and stores how much memory they have used."""

from __future__ import annotations

import asyncio
import logging

from rbee.errors import CatalogFailed, RbeeError, UnknownWorker, WorkerFailed
from rbee.narration import Event, Narrator
from rbee.queen.hives.hives import Hives
from rbee.queen.models.models import Models
from rbee.queen.serving.need import kind_of
from rbee.queen.serving.workers import KnownWorkers, Worker
from rbee.queen.store.models import Learned
from rbee.wire.workers import HiveWorker

log = logging.getLogger("rbee")

STOP_TIMEOUT = 30.0
"""Seconds for a hive to stop a worker, and to prove that its memory is free again."""

RETRY_AFTER = 30.0
"""Seconds for which the idle timer leaves alone a worker that could not be stopped."""


class Stopper:
    """Stops workers on their hives."""

    def __init__(self, hives: Hives, known: KnownWorkers, models: Models) -> None:
        self._hives = hives
        self._known = known
        self._models = models

    async def stop(
        self, worker: Worker, story: Narrator, event: Event, text: str, why: RbeeError | None = None
    ) -> None:
        """Stop a worker and wait for its end; if it is being stopped already, only wait.

        `text` is narrated first; `why` is the error for its requests, by default that it is being stopped.
        The stop continues if the caller is cancelled. Raises RbeeError.
        """
        await self.begin(worker, story, event, text, why)

    def begin(
        self, worker: Worker, story: Narrator, event: Event, text: str, why: RbeeError | None = None
    ) -> asyncio.Future[None]:
        """As stop(), but return what is to be awaited: from now on the worker takes no request."""
        if worker.ending is None:
            story.narrate(event, text, hive=worker.hive_id, worker=worker.id, model=worker.seen.model)
            worker.ending = asyncio.get_running_loop().create_task(self._stop(worker, why))
            worker.ending.add_done_callback(_retrieve)
            worker.changed()
            self._known.changes.announce()
        return asyncio.shield(worker.ending)

    async def _stop(self, worker: Worker, why: RbeeError | None) -> None:
        try:
            failed = worker.seen.state == "failed"
            how = f"has ended: {worker.seen.reason}" if failed else "is being stopped"
            worker.cut(why or WorkerFailed(f"the worker {worker.id} {how}"))
            client = await self._hives.hive(worker.hive_id).reach()
            seen = await client.stop_worker(worker.id, timeout=STOP_TIMEOUT)
        except UnknownWorker:
            pass  # it has ended by itself
        except BaseException:
            worker.ending = None
            worker.changed()
            worker.keep_until = asyncio.get_running_loop().time() + RETRY_AFTER
            self._known.changes.announce()
            raise
        else:
            await learn(self._models, worker, seen)
        self._known.drop(worker)

    async def end(self) -> None:
        """Cancel the requests to hives, which finish the stops without the queen."""
        ending = [worker.ending for worker in self._known.all() if worker.ending is not None]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)


async def learn(models: Models, worker: Worker, seen: HiveWorker) -> None:
    """Store the most memory that a worker has used, by its last report; a failure is logged.

    An engine that fills its claim, and takes a little more, would raise the next claim with each start.
    """
    if not seen.peak_bytes or seen.fills_claim or worker.has_former_file:
        return
    learned = Learned(seen.model, seen.context, kind_of(seen.pool), seen.engine, seen.peak_bytes)
    try:
        await models.learn(learned)
    except CatalogFailed as error:
        log.error("the memory that %s has used could not be stored: %s", seen.model, error.message)


def _retrieve(task: asyncio.Task[None]) -> None:
    """Take the result of a stop that nobody waits for any more."""
    if not task.cancelled() and (error := task.exception()) is not None and not isinstance(error, RbeeError):
        log.error("stopping a worker failed", exc_info=error)
