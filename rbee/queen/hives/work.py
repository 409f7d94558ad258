"""Operations on hives: add, remove, shut down. Each is a job with a story.

A job runs to its end whether a client follows it or not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any

from rbee.errors import RbeeError, UnknownHost
from rbee.narration import (
    ADD_FAILED,
    ADDING,
    REMOVE_FAILED,
    REMOVED,
    REMOVING,
    SHUTDOWN_FAILED,
    SHUTTING_DOWN_HIVES,
    Event,
    Narrator,
)
from rbee.queen.hives.hive import Hive
from rbee.queen.hives.hives import Hives
from rbee.queen.hives.standing import Shared
from rbee.queen.jobs import Job, Jobs
from rbee.queen.store.records import Actor
from rbee.scope import REMOTE, TARGET
from rbee.systemd.aio import AsyncBus
from rbee.wire.hives import AddHive
from rbee.wire.jobs import Done
from rbee.wire.types import LOCALHOST

log = logging.getLogger("rbee")


class HiveWork:
    """Runs the operations as jobs; `bus` stops the target with all units."""

    def __init__(self, shared: Shared, hives: Hives, jobs: Jobs, bus: AsyncBus) -> None:
        self._shared = shared
        self._hives = hives
        self._jobs = jobs
        self._bus = bus
        self._asking: asyncio.Task[None] | None = None
        self.before_stop: Callable[[Narrator], None] = lambda story: None
        """Called before the target is stopped."""

    async def end(self) -> None:
        """Begin no more jobs; wait until the remote hives have been asked to stop, if that has begun."""
        self._shared.tasks.close()
        if self._asking is not None:
            await asyncio.wait({self._asking})

    def add(self, request: AddHive, actor: dict[str, str]) -> Job:
        """Begin a job that adds a hive; one in the catalog is brought online from its present state.

        Raises UnknownHost, TooMany or Stopping.
        """
        host = self._hives.spelled(request.host)
        known = self._hives.find(host)
        if host != LOCALHOST and (known is None or not known.standing.row.is_remote):
            raise UnknownHost(
                f"host '{host}' is not known: it is not {LOCALHOST}, and no machine has joined as it",
                hint=f"{self._shared.scope.rbeectl('add-hive HOST')}, which uses ssh\n"
                f"Or on that machine: {REMOTE.rejoin}",
                field="host",
            )
        job = self._jobs.open("add-hive", host)
        story = self._shared.narrator.about(job_id=job.id, hive=host, **actor)
        by = {**actor, "job_id": job.id}
        work = partial(self._add, job, story, request._replace(host=host), by)
        self._shared.tasks.begin(self._run(job, story, ADD_FAILED, f"adding {host}", work))
        return job

    async def _add(self, job: Job, story: Narrator, request: AddHive, by: Actor) -> Done:
        host = request.host
        story.narrate(ADDING, f"Adding {'local pc' if host == LOCALHOST else host} to hive catalog.")
        async with self._in_catalog(request, by) as hive:
            return Done(await hive.add(job, story, by))

    @contextlib.asynccontextmanager
    async def _in_catalog(self, request: AddHive, by: Actor) -> AsyncIterator[Hive]:
        """Put the hive into the catalog as desired, and yield it with its lock held."""
        host = request.host
        while True:
            hive = self._hives.find(host)
            if hive is None:
                row = await self._shared.catalog.hives.add(host, host, request.port, by=by)
                hive = self._hives.find(host) or self._hives.take_in(row, "pending", "just added")
                async with hive.lock:
                    if not hive.is_removed:
                        yield hive
                        return
            else:
                async with hive.lock:
                    if not hive.is_removed:
                        hive.standing.row = await self._shared.catalog.hives.add(
                            host, host, request.port, by=by
                        )
                        yield hive
                        return

    async def ensure(self, hive_id: str, job: Job, story: Narrator, by: Actor) -> None:
        """Bring the local hive into the catalog and online for another job; for a remote one do nothing.

        Raises what adding it raises.
        """
        hive = self._hives.find(hive_id)
        if hive_id == LOCALHOST and (hive is None or not hive.standing.is_online):
            await self._add(job, story, AddHive(LOCALHOST), by)

    def remove(self, hive_id: str, actor: dict[str, str], *, is_forced: bool = False) -> Job:
        """Begin a job that stops and removes a hive; it is no error if the hive does not exist.

        A remote hive that cannot be asked to leave is removed only if `is_forced`. Raises TooMany or
        Stopping.
        """
        job = self._jobs.open("remove-hive", hive_id)
        story = self._shared.narrator.about(job_id=job.id, hive=hive_id, **actor)
        by = {**actor, "job_id": job.id}
        work = partial(self._remove, story, hive_id, by, is_forced)
        self._shared.tasks.begin(self._run(job, story, REMOVE_FAILED, f"removing {hive_id}", work))
        return job

    async def _remove(self, story: Narrator, hive_id: str, by: Actor, is_forced: bool) -> Done:
        story.narrate(REMOVING, f"Removing {hive_id} from hive catalog")
        hive = self._hives.find(hive_id)
        if hive is not None:
            async with hive.lock:
                if not hive.is_removed:
                    is_stopped = await hive.remove(story, by, is_forced=is_forced)
                    self._hives.forget(hive)
                    state = "stopped and no longer in the hive catalog"
                    if not is_stopped:
                        state = "no longer in the hive catalog; whether it runs is not known"
                    story.narrate(REMOVED, f"the beehive {hive_id} is {state}")
                    return Done(None, was_there=True)
        story.narrate(REMOVED, f"the beehive {hive_id} was not in the hive catalog")
        return Done(None, was_there=False)

    def shut_down(self, actor: dict[str, str]) -> Job:
        """Begin a job in which systemd stops the hives and then the queen; return the one that runs, if any.

        The queen's end ends the story. However many jobs run, it begins. Raises Stopping.
        """
        running = self._jobs.running("shutdown")
        job = running or self._jobs.open("shutdown", None)
        story = self._shared.narrator.about(job_id=job.id, **actor)
        if running is None:
            story.narrate(SHUTTING_DOWN_HIVES, "Shutting down all hives")
        # Also for a job that runs: the queen may have been started again in between.
        self._shared.tasks.begin(self._shut_down(job, story))
        return job

    async def _shut_down(self, job: Job, story: Narrator) -> None:
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask_hives(story))
        # Shielded from a stop of the queen, which may be under way already.
        await asyncio.shield(self._asking)
        self.before_stop(story)
        try:
            await self._bus.ask_stop(TARGET)
        except RbeeError as error:
            self._asking = None  # the next try asks them again
            for hive in self._hives.remote():
                hive.is_leaving = False
            story.narrate(SHUTDOWN_FAILED, f"shutting down failed: {error.message}")
            job.failed(error)

    async def _ask_hives(self, story: Narrator) -> None:
        await asyncio.gather(*(hive.shut_down(story) for hive in self._hives.remote()))

    @property
    def is_asking_hives(self) -> bool:
        """Are remote hives being asked to stop?"""
        return self._asking is not None and not self._asking.done()

    async def _run(
        self,
        job: Job,
        story: Narrator,
        failed: Event,
        doing: str,
        work: Callable[[], Coroutine[Any, Any, Done]],
    ) -> None:
        """Do a job's work, and end the job with its result or its error."""
        try:
            job.done(await work())
        except RbeeError as error:
            story.narrate(failed, f"{doing} failed: {error.message}")
            job.failed(error)
        except Exception as error:
            log.exception("%s failed", doing)
            job.failed(RbeeError(f"{doing} failed: internal error: {error!r}"))
        self._shared.changed()
