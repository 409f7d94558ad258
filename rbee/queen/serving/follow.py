"""Follows a worker while it loads, and cleans up after one that fails."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Literal

from rbee.errors import CatalogFailed, RbeeError, UnknownWorker, WorkerFailed
from rbee.narration import WORKER_AWAKE, WORKER_UNPLACED
from rbee.queen.serving.failures import Failures
from rbee.queen.serving.need import context_of
from rbee.queen.serving.parts import Parts
from rbee.queen.serving.placement import Target
from rbee.queen.serving.start import Start
from rbee.queen.serving.stopping import Stopper, learn
from rbee.queen.serving.workers import KnownWorkers, Worker
from rbee.text import shown_span
from rbee.wire.workers import HiveWorker

if TYPE_CHECKING:
    from rbee.queen.store.models import ModelRow

log = logging.getLogger("rbee")

ANSWER_TIMEOUT = 10.0
"""Seconds for a hive's answer, in addition to the time for which the hive waits for a change."""

HIVE_PATIENCE = 60.0
"""Seconds for which a hive may be unreachable while it loads a model."""


class Follower:
    """Follows starts of workers on their hives."""

    def __init__(self, parts: Parts, known: KnownWorkers, stopper: Stopper, failures: Failures) -> None:
        self._hives = parts.hives
        self._models = parts.models
        self._narrator = parts.narrator
        self._scope = parts.scope
        self._known = known
        self._stopper = stopper
        self._failures = failures

    async def follow(self, start: Start, worker: Worker) -> None:
        """Return once the worker is ready. Raises WorkerFailed."""
        loop = asyncio.get_running_loop()
        heard = loop.time()
        while not worker.is_ready:
            if worker.seen.state in ("failed", "stopped") or worker.ending is not None:
                raise await self._gone(worker)
            start.show(self._loading(start, worker), worker.seen.percent)
            try:
                client = await self._hives.hive(worker.hive_id).reach()
                seen = await client.worker(worker.id, after=worker.seen.serial, timeout=ANSWER_TIMEOUT)
            except UnknownWorker as error:
                text = f"{worker.id} is gone, and its hive does not know how it ended"
                raise WorkerFailed(text, hint=self._hint(start.model)) from error
            except RbeeError as error:  # it may be restarted just now
                if loop.time() - heard > HIVE_PATIENCE:
                    text = f"the beehive {worker.hive_id} did not answer for {HIVE_PATIENCE:g} s"
                    raise WorkerFailed(f"{text} while it loaded {start.model}: {error.message}") from error
                await self._known.changes.wait(1.0)
                continue
            heard = loop.time()
            worker = self._known.take(worker.hive_id, seen)
        await learn(self._models, worker, worker.seen)
        await self._note_file(start.model, "ready")
        took = shown_span(loop.time() - start.began)
        story = start.story.about(hive=worker.hive_id, worker=worker.id)
        story.narrate(
            WORKER_AWAKE,
            f"{start.model} is awake: {worker.id} on {worker.hive_id} {worker.seen.pool}, after {took}",
        )

    async def _gone(self, worker: Worker) -> RbeeError:
        """Return why a worker did not become ready, after removing what is left of it."""
        if worker.seen.state != "failed":
            return WorkerFailed(f"{worker.id} was stopped while it loaded {worker.seen.model}")
        return await self.failed(worker)

    async def failed(self, worker: Worker) -> RbeeError:
        """Note that a worker has failed, remove what is left of it, and return the error."""
        failure = self._failures.note(worker.hive_id, worker.seen)
        if worker.seen.is_file_missing or worker.seen.is_file_found:
            await self._note_file(worker.seen.model, "missing" if worker.seen.is_file_missing else "ready")
        story = self._narrator.about(model=worker.seen.model)
        text = f"removing what is left of {worker.id}: {failure.reason}"
        try:
            await self._stopper.stop(worker, story, WORKER_UNPLACED, text)
        except RbeeError as error:
            log.warning("the failed worker %s could not be removed: %s", worker.id, error.message)
        return self._failures.error(failure, self._hint(worker.seen.model))

    async def _note_file(self, name: str, state: Literal["ready", "missing"]) -> None:
        """Store whether the last start found a model's file; a failure is logged."""
        model = self._models.find(name)
        if model is None or not model.row.has_arrived or model.row.state == state:
            return
        reason = f"the last start did not find {model.row.path}" if state == "missing" else ""
        try:
            await self._models.set_state(model, state, reason)
        except CatalogFailed as error:
            log.error("could not store that the file of %s is %s: %s", name, state, error.message)

    def refused(self, worker_id: str, row: ModelRow, target: Target, error: RbeeError) -> RbeeError:
        """Note that a hive has refused to start a worker, as a failure of it, and return the error.

        Otherwise each request would try again, and idle workers would give way for nothing.
        """
        seen = HiveWorker(
            worker_id, row.name, target.engine, target.pool, context_of(row), target.need.bytes,
            "failed", error.message, 0, 0,
        )  # fmt: skip
        failure = self._failures.note(target.hive_id, seen)
        return self._failures.error(failure, error.hint or self._hint(row.name))

    def _loading(self, start: Start, worker: Worker) -> str:
        percent = worker.seen.percent
        shown = "" if percent is None else f", {percent:.0f} %"
        return f"loading {start.model}{shown}"

    def error(self, model: str) -> RbeeError | None:
        """Return the error of a model's last failure while no worker is started because of it, or None.

        One that loads is followed anyway: its hive may have started it without answering in time.
        """
        failure = self._failures.find(model)
        is_loading = any(worker.seen.state == "loading" for worker in self._known.of_model(model))
        if failure is None or self._failures.pause(model) <= 0 or is_loading:
            return None
        return self._failures.error(failure, self._hint(model))

    def _hint(self, model: str) -> str:
        return self._scope.rbeectl(f"status {model}")
