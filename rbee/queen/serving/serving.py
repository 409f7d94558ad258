"""Serving: the workers, and what is done with them. Built at its first use."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from rbee.errors import NotServed, RbeeError
from rbee.narration import (
    LEASES_CUT,
    UNSERVE_FAILED,
    UNSERVED,
    UNSERVING,
    WORKER_IDLE,
    WORKER_REMOVED,
    Event,
    Narrator,
)
from rbee.queen.changes import Changes
from rbee.queen.hives.hives import Hives
from rbee.queen.jobs import Job
from rbee.queen.serving.failures import Failures
from rbee.queen.serving.follow import Follower
from rbee.queen.serving.idle import IdleTimer
from rbee.queen.serving.leases import Leases
from rbee.queen.serving.parts import Parts
from rbee.queen.serving.refresh import Refresher
from rbee.queen.serving.snapshot import Snapshots
from rbee.queen.serving.starter import Starter
from rbee.queen.serving.stopping import Stopper
from rbee.queen.serving.workers import KnownWorkers, Worker
from rbee.queen.store.records import Actor
from rbee.text import shown_span
from rbee.wire.jobs import Done
from rbee.wire.workers import Placement, Workers, WorkerView

if TYPE_CHECKING:
    from rbee.queen.store.models import ModelRow

log = logging.getLogger("rbee")


class Serving:
    """The workers, their starts and stops, and the leases."""

    def __init__(self, parts: Parts) -> None:
        hives, models = parts.hives, parts.models
        self._parts = parts
        self.failures = Failures(parts.clocks)
        self.known = KnownWorkers(parts.clocks, Changes(self._look))
        self.idle = IdleTimer(self.known, models, self._begin_idle_stop, partial(_is_lost, hives))
        self.snapshots = Snapshots(hives, self.known, models)
        self.stopper = Stopper(hives, self.known, models)
        self.refresher = Refresher(hives, self.known, parts.tasks, self._review)
        self.follower = Follower(parts, self.known, self.stopper, self.failures)
        self.starter = Starter(parts, self.known, self.snapshots, self.stopper, self.follower, self.failures)
        self.leases = Leases(parts, self.known, self.starter, self.failures, self.refresher)
        self._is_ended = False

    # What there is

    async def placement(self, name: str) -> Placement:
        """Return where a worker of a model would run now. Raises UnknownModel."""
        row = self._parts.models.model(name).row
        return (await self.starter.decide(row)).placement

    def views(self, model: str | None = None) -> Workers:
        """Return the workers as clients see them, and the served models without one; of all or one model."""
        views = [self._view(one) for one in self.known.all() if model in (None, one.seen.model)]
        with_worker = {view.model for view in views}
        for one in self._parts.models.all():
            if one.name not in with_worker and model in (None, one.name):
                view = self._without_worker(one.row)
                views += [view] if view is not None else []
        return Workers(tuple(sorted(views, key=lambda view: (view.model, view.id or ""))))

    def worker_ids(self, hive_id: str) -> tuple[str, ...]:
        """Return the ids of a hive's workers."""
        return tuple(worker.id for worker in self.known.all() if worker.hive_id == hive_id)

    def _view(self, worker: Worker) -> WorkerView:
        model, hive = (
            self._parts.models.find(worker.seen.model),
            self._parts.hives.find(worker.hive_id),
        )
        is_pinned = model is not None and model.row.is_pinned
        if hive is None or not hive.standing.is_online:
            life = None if hive is None else hive.standing.life
            why = "its hive is not in the catalog" if life is None else f"the beehive is {life.state}"
            return worker.view(is_pinned=is_pinned, is_known=False, why_unknown=why)
        return worker.view(is_pinned=is_pinned, is_known=True)

    def _without_worker(self, row: ModelRow) -> WorkerView | None:
        """Return the view of a model without a worker, None if it is not served."""
        start, failure = self.starter.find(row.name), self.failures.find(row.name)
        if start is not None:
            return WorkerView(
                None, row.name, None, "waiting", start.text, start.since_ms, is_pinned=row.is_pinned
            )
        if failure is not None:
            return self.failures.view(failure, is_pinned=row.is_pinned)
        if not row.is_served:
            return None
        reason = "it is woken by a request"
        if row.state != "ready":
            reason = f"its file is {row.state}{f': {row.reason}' if row.reason else ''}"
        since_ms = max(row.since_ms, self.known.ended_ms(row.name))
        return WorkerView(None, row.name, None, "asleep", reason, since_ms, is_pinned=row.is_pinned)

    # What hives report

    def work_changed(self, hive_id: str) -> None:
        """Have a hive asked for its workers."""
        if not self._is_ended:
            self.refresher.begin(hive_id)

    def hive_removed(self, hive_id: str) -> None:
        """Forget the workers of a hive that was removed from the catalog."""
        self.known.forget_hive(hive_id)

    def _review(self, hive_id: str) -> None:
        """Handle the workers that a hive has reported and that have failed, or whose model is not served."""
        for worker in self.known.all():
            if worker.hive_id != hive_id or worker.ending is not None:
                continue
            name = worker.seen.model
            model = self._parts.models.find(name)
            if worker.seen.state in ("failed", "stopped"):
                if self.starter.find(name) is None:
                    self._parts.tasks.begin(self._clean_up(worker))
            elif model is None or not model.row.is_served:
                text = f"stopping {worker.id}: the model {name} is not served"
                why = NotServed(f"the model {name} is not served any more")
                self._parts.tasks.begin(self._stop(worker, WORKER_REMOVED, text, why))
        self.idle.look()

    async def _clean_up(self, worker: Worker) -> None:
        if worker.seen.state == "failed":
            await self.follower.failed(worker)
        else:
            self.known.drop(worker)

    # Stopping

    def _look(self) -> None:
        if not self._is_ended:
            self.idle.look()

    def _begin_idle_stop(self, worker: Worker) -> None:
        self._parts.tasks.begin(self._stop_idle(worker))

    async def _stop_idle(self, worker: Worker) -> None:
        model = self._parts.models.find(worker.seen.model)
        if worker.in_flight or not worker.is_ready or model is None:
            return
        why = f"had no request for {shown_span(model.row.idle_s)}"
        if worker.is_outdated(model.row):
            why = "is served with another file, context or engine now"
        await self._stop(worker, WORKER_IDLE, f"{worker.seen.model} {why}: stopping {worker.id}")

    async def _stop(self, worker: Worker, event: Event, text: str, why: RbeeError | None = None) -> None:
        """Stop a worker that nobody waits for; a failure is logged, and it is tried again later."""
        try:
            await self.stopper.stop(worker, self._parts.narrator, event, text, why)
        except RbeeError as error:
            log.warning("%s could not be stopped: %s", worker.id, error.message)
            self._look()

    def unserve(self, name: str, actor: dict[str, str]) -> Job:
        """Begin a job that unserves a model and stops its workers; one that does not exist is no error.

        Raises TooMany or Stopping.
        """
        job = self._parts.jobs.open("unserve", None)
        story = self._parts.narrator.about(job_id=job.id, model=name, **actor)
        self._parts.tasks.begin(self._unserve(name, job, story, {**actor, "job_id": job.id}))
        return job

    async def _unserve(self, name: str, job: Job, story: Narrator, by: Actor) -> None:
        models = self._parts.models
        try:
            story.narrate(UNSERVING, f"no longer serving {name}")
            model = await models.unserve(name, by)
            hint = None if model is None else self._parts.scope.rbeectl(f"serve {name}")
            why = NotServed(f"the model {name} is not served any more", hint=hint)
            count = await self.stop_model(name, story, why)
        except RbeeError as error:
            story.narrate(UNSERVE_FAILED, f"a worker of {name} may still run: {error.message}")
            job.failed(error)
            return
        workers = "1 worker has" if count == 1 else f"{count} workers have"
        there = "is not served any more" if model is not None else "is not in the catalog"
        story.narrate(UNSERVED, f"{name} {there}; {workers} ended")
        view = None if model is None else models.view(model)
        job.done(Done(None, was_there=model is not None, model=view))

    async def stop_model(self, name: str, story: Narrator, why: RbeeError) -> int:
        """Stop all workers of a model that is not served any more; its requests end with the error `why`.

        Returns how many there were, without those of a hive that is offline. Raises the first RbeeError,
        after all have been tried.
        """
        await self.starter.withdraw(name, why)
        self.failures.forget(name)
        workers = [one for one in self.known.of_model(name) if not _is_lost(self._parts.hives, one)]
        stops = (
            self.stopper.stop(worker, story, WORKER_REMOVED, f"stopping {worker.id}", why)
            for worker in workers
        )
        results = await asyncio.gather(*stops, return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return len(workers)

    def served_anew(self, name: str) -> None:
        """Note that an operator has served a model, or changed how: after a failure it may start at once.

        Its engine is asked now what it needs, so that the first request does not wait for the answer.
        """
        self.failures.forget(name)
        self._parts.tasks.begin(self.starter.estimates.ask(name))
        self._look()

    def cut(self, story: Narrator) -> None:
        """Cut all leases, as the workers are about to be stopped with rbee's target."""
        count = self.leases.cut()
        if count:
            requests = "1 request" if count == 1 else f"{count} requests"
            story.narrate(LEASES_CUT, f"cutting {requests} before the workers stop")

    async def end(self) -> None:
        """Leave the workers and their requests as they are: the next queen takes them over."""
        self._is_ended = True
        self.idle.end()
        self.leases.abandon()
        await self.starter.end()
        await self.stopper.end()


def _is_lost(hives: Hives, worker: Worker) -> bool:
    """Is a worker's hive offline? Then it has ended, or is looked at when the hive is back (_review)."""
    hive = hives.find(worker.hive_id)
    return hive is None or hive.standing.life.state == "offline"
