"""Operations on models: add and remove. Each is a job with a story.

A job runs to its end whether or not a client follows it; a fetch even outlives the job that began it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from rbee.client.link import HiveClient
from rbee.errors import (
    BadInput,
    FetchFailed,
    HiveNotOnline,
    ModelExists,
    RbeeError,
    UnknownHive,
    UnknownModel,
)
from rbee.narration import (
    MODEL_ADDING,
    MODEL_FAILED,
    MODEL_NOT_REMOVED,
    MODEL_READY,
    MODEL_REMOVED,
    MODEL_REMOVING,
    Event,
    Narrator,
)
from rbee.queen.hives.hive import Hive
from rbee.queen.hives.hives import Hives
from rbee.queen.hives.standing import Shared
from rbee.queen.hives.work import HiveWork
from rbee.queen.jobs import Job, Jobs
from rbee.queen.models.describe import describe_model
from rbee.queen.models.following import FetchTools, Following
from rbee.queen.models.model import Model
from rbee.queen.models.models import Models
from rbee.queen.models.source import Source, source_of
from rbee.queen.store.models import IDLE_S, ModelRow
from rbee.queen.store.records import Actor, now_ms
from rbee.wire.jobs import Done, JobKind
from rbee.wire.models import AddModel, Fetch
from rbee.wire.types import LOCALHOST

log = logging.getLogger("rbee")

OFFLINE_PATIENCE = 60.0
"""Seconds for which a job waits for a hive that is offline; the fetch continues without the job."""

ONLINE_PATIENCE = 16.0
"""Seconds to wait for a hive that has a file to remove: it dials at least every 15 s (rbee.hive.dial)."""

REMOVAL_TIMEOUT = 40.0
"""Seconds for a hive to cancel a fetch, or to remove a file; it takes 30 at most."""

StopWorkers = Callable[[str, Narrator, RbeeError], Awaitable[None]]
"""Stops all workers of a model; raises RbeeError if one may still run."""


async def _no_workers(_name: str, _story: Narrator, _why: RbeeError) -> None:
    """Do nothing: without serving there are no workers."""


class _Task(NamedTuple):
    """An operation: its job, where it narrates, and who requested it."""

    job: Job
    story: Narrator
    by: Actor


class _Place(NamedTuple):
    """The hive for a model, and the model that had its name before, if any."""

    hive_id: str
    before: Model | None


class ModelWork:
    """Runs the operations as jobs."""

    def __init__(self, shared: Shared, hives: Hives, hive_work: HiveWork, jobs: Jobs, models: Models) -> None:
        self._shared = shared
        self._hives = hives
        self._hive_work = hive_work
        self._jobs = jobs
        self._models = models
        self._tools = FetchTools(models, hives, shared.narrator, shared.scope, shared.changes, time.monotonic)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._followings: dict[str, Following] = {}
        self.stop_workers: StopWorkers = _no_workers

    def resume(self) -> None:
        """Follow the fetches that were under way when the queen stopped."""
        for model in self._models.all():
            if model.row.state == "fetching" and model.row.fetch is not None:
                self._follow(model, None, None)

    # Adding

    def add(self, asked: AddModel, actor: dict[str, str]) -> Job:
        """Begin a job that adds a model; one that exists already continues from its state.

        Raises BadInput, UnknownHive, ModelExists for another source, TooMany or Stopping.
        """
        source = source_of(asked)
        if source.fetch is None and (asked.head is None or asked.bytes is None):
            field = "head" if asked.head is None else "bytes"
            raise BadInput(f"a model with a path needs its {field}, as read from its file", field=field)
        hive_id = self._hives.spelled(asked.hive or LOCALHOST)
        if not self._hives.can_wake(hive_id):
            self._hives.hive(hive_id)
        self._check_source(self._models.find(asked.name), source, hive_id)
        task = self._begin("add-model", asked.name, hive_id, actor)
        work = partial(self._add, task, asked, source, hive_id)
        self._run(task, MODEL_FAILED, f"adding {asked.name}", work)
        return task.job

    def _check_source(self, model: Model | None, source: Source, hive_id: str) -> None:
        """Raise ModelExists if there is another model of this name."""
        if model is None:
            return
        row = model.row
        if row.hive_id == hive_id and row.source == source.shown:
            # Only the hidden query or the sha256 differs: a ready file is not replaced on a guess.
            if row.fetch == source.fetch or row.state != "ready":
                return
            what = f"from {row.source} with another query, or another sha256"
        else:
            what = f"from {row.source} on hive {row.hive_id}"
        raise ModelExists(
            f"there is a model {row.name} already, {what}",
            hint=f"Choose another name, or first: {self._shared.scope.rbeectl(f'model remove {row.name}')}",
            field="name",
        )

    async def _add(self, task: _Task, asked: AddModel, source: Source, hive_id: str) -> Done:
        task.story.narrate(MODEL_ADDING, f"Adding {asked.name} to model catalog, from {source.shown}")
        if source.fetch is not None:
            await self._hive_work.ensure(hive_id, task.job, task.story, task.by)
        async with self._lock(asked.name):
            before = self._models.find(asked.name)
            self._check_source(before, source, hive_id)
            was_ready = before is not None and before.row.state == "ready" and source.fetch is not None
            model, following = await self._put(task, asked, source, _Place(hive_id, before))
        if following is not None:
            return await self._await(following, model, task)
        again = "is there already" if was_ready else "is ready"
        task.story.narrate(MODEL_READY, f"model {model.name} {again}: {describe_model(model.row)}")
        return Done(None, model=self._models.view(model))

    async def _put(
        self, task: _Task, asked: AddModel, source: Source, place: _Place
    ) -> tuple[Model, Following | None]:
        """Write the model's row; return the model, and the Following of its fetch, new or from before."""
        following = self._followings.get(asked.name)
        before = None if place.before is None else place.before.row
        if following is not None and following.outcome.done():
            following = None
        if following is not None and (before is None or before.fetch != source.fetch):
            # The URL has another query: its fetch replaces the former one.
            following.cancel(UnknownModel(f"model {asked.name} is now being added from another URL"))
            following = None
            await self._drop_former(before)
        again = partial(_added_again, asked, source, is_followed=following is not None)
        model = place.before
        if model is None or again(model.row) != model.row:
            row = _given(_new_row(asked, source, place.hive_id), asked)
            model = await self._models.put(row, task.by, again=again)
        if model.row.state == "fetching":
            assert asked.url is not None
            assert source.fetch is not None
            fetch = Fetch(source.fetch, asked.name, asked.url, asked.sha256)
            if following is None or following.outcome.done():  # while the row was written
                following = self._follow(model, fetch, task.job.id)
            else:
                following.ask_again(fetch)
        return model, following

    async def _drop_former(self, before: ModelRow | None) -> None:
        """Have the hive cancel a fetch that another replaces; if that fails, the hive drops it later."""
        model = None if before is None else self._models.find(before.name)
        hive = None if before is None else self._hives.find(before.hive_id)
        if model is None or model.row.fetch is None or hive is None or self._models.with_file(model):
            return
        with contextlib.suppress(RbeeError):
            await _cancelled(await hive.reach(), model.row.fetch)

    def _lock(self, name: str) -> asyncio.Lock:
        """Return the lock of a model's name: operations on one model run one at a time."""
        lock = self._locks.get(name)
        if lock is None:
            lock = self._locks[name] = asyncio.Lock()
        return lock

    def _follow(self, model: Model, fetch: Fetch | None, job_id: str | None) -> Following:
        following = Following(model, self._tools, fetch, job_id)
        self._followings[model.name] = following

        def forget(_outcome: object) -> None:
            if self._followings.get(model.name) is following:
                del self._followings[model.name]

        following.outcome.add_done_callback(forget)
        self._shared.tasks.begin(following.run())
        return following

    async def _await(self, following: Following, model: Model, task: _Task) -> Done:
        """Wait for the end of a fetch. Raises HiveNotOnline once its hive is away for OFFLINE_PATIENCE."""
        with following.narrated_to(task.story):
            while not following.outcome.done():
                await following.changes.until(lambda: following.outcome.done() or following.waits is not None)
                try:
                    await following.changes.until(
                        lambda: following.outcome.done() or following.waits is None, timeout=OFFLINE_PATIENCE
                    )
                except TimeoutError as error:
                    raise HiveNotOnline(
                        f"{following.waits}; the fetch of {model.name} continues when the hive is back",
                        hint=self._shared.scope.rbeectl(f"model show {model.name}"),
                    ) from error
            await following.outcome
        return Done(None, model=self._models.view(model))

    # Removing

    def remove(self, name: str, actor: dict[str, str]) -> Job:
        """Begin a job that stops a model's workers and removes it; one that does not exist is no error.

        Raises TooMany or Stopping.
        """
        model = self._models.find(name)
        task = self._begin("remove-model", name, None if model is None else model.row.hive_id, actor)
        self._run(task, MODEL_NOT_REMOVED, f"removing {name}", partial(self._remove, task, name))
        return task.job

    async def _remove(self, task: _Task, name: str) -> Done:
        task.story.narrate(MODEL_REMOVING, f"Removing {name} from model catalog")
        async with self._lock(name):
            model = await self._models.unserve(name, task.by)
            if model is None:
                task.story.narrate(MODEL_REMOVED, f"model {name} was not in the model catalog")
                return Done(None, was_there=False)
            hint = self._shared.scope.rbeectl("model list")
            removed = UnknownModel(f"model {name} was removed", hint=hint)
            await self.stop_workers(name, task.story, removed)
            left = await self._remove_file(task, model)
            await self._models.remove(model, task.by)
            if name in self._followings:
                self._followings[name].cancel(removed)
        text = f"model {name} is no longer in the model catalog"
        task.story.narrate(MODEL_REMOVED, f"{text}; {left}" if left else text)
        return Done(None, was_there=True)

    async def _until_online(self, hive: Hive, name: str) -> None:
        """Wait for a hive that may be about to connect; raises HiveNotOnline."""
        try:
            await self._shared.changes.until(lambda: hive.standing.is_online, timeout=ONLINE_PATIENCE)
        except TimeoutError as error:
            life = hive.standing.life
            raise HiveNotOnline(
                f"hive {hive.id} has the file of {name}, and is {life.state}: {life.reason}",
                hint=self._shared.scope.rbeectl(f"add-hive {hive.id}"),
            ) from error

    async def _remove_file(self, task: _Task, model: Model) -> str | None:
        """Have the hive remove what it has fetched, unless another model uses it; return what stays, and why.

        Raises HiveNotOnline or the hive's error: then the model stays, too.
        """
        row = model.row
        if row.fetch is None:
            return f"its file stays: {row.source}"
        others = self._models.with_file(model)
        if others:
            return f"its file stays, as it is used by {', '.join(other.name for other in others)}"
        try:
            hive = self._hives.hive(row.hive_id)
        except UnknownHive:
            return f"its file stays on {row.hive_id}, which is not in the catalog"
        await self._hive_work.ensure(hive.id, task.job, task.story, task.by)
        await self._until_online(hive, row.name)
        client = await hive.reach()
        sha256 = row.sha256 if row.has_arrived else await _cancelled(client, row.fetch)
        if sha256 is not None and not self._models.have_file(sha256, model):
            await client.remove_file(sha256, timeout=REMOVAL_TIMEOUT)
        return None

    # Jobs

    def _begin(self, kind: JobKind, name: str, hive_id: str | None, actor: dict[str, str]) -> _Task:
        job = self._jobs.open(kind, hive_id)
        about = {} if hive_id is None else {"hive": hive_id}
        story = self._shared.narrator.about(job_id=job.id, model=name, **about, **actor)
        return _Task(job, story, {**actor, "job_id": job.id})

    def _run(
        self, task: _Task, failed: Event, doing: str, work: Callable[[], Coroutine[Any, Any, Done]]
    ) -> None:
        self._shared.tasks.begin(self._do(task, failed, doing, work))

    async def _do(
        self, task: _Task, failed: Event, doing: str, work: Callable[[], Coroutine[Any, Any, Done]]
    ) -> None:
        """Do a job's work, and end the job with its result or its error."""
        try:
            task.job.done(await work())
        except asyncio.CancelledError:
            raise
        except FetchFailed as error:
            task.job.failed(error)  # the fetch has narrated it
        except RbeeError as error:
            task.story.narrate(failed, f"{doing} failed: {error.message}")
            task.job.failed(error)
        except Exception as error:
            log.exception("%s failed", doing)
            task.job.failed(RbeeError(f"{doing} failed: internal error: {error!r}"))
        self._shared.changed()


async def _cancelled(client: HiveClient, fetch_id: str) -> str | None:
    """Cancel a fetch; return the SHA-256 of its file if it is done already. Raises the hive's error."""
    try:
        view = await client.cancel_fetch(fetch_id, timeout=REMOVAL_TIMEOUT)
    except RbeeError as error:
        if error.status != 404:
            raise
        return None
    return view.sha256 if view.state == "done" else None


def _new_row(asked: AddModel, source: Source, hive_id: str) -> ModelRow:
    """Return the row for a model that is added for the first time."""
    now = now_ms()
    return ModelRow(
        asked.name, hive_id, source.shown, source.fetch, "fetching", "", now, None, None, None,
        asked.sha256, None, None, is_served=False, is_pinned=False, idle_s=IDLE_S, engine=None,
        created_at_ms=now,
    )  # fmt: skip


def _added_again(asked: AddModel, source: Source, before: ModelRow, *, is_followed: bool) -> ModelRow:
    """Return the row for a model that is added again; what is not `asked` stays as it was before.

    `before` may have become ready, or have failed, since it was seen that its fetch `is_followed`.
    """
    has_file = before.state == "ready" and before.fetch == source.fetch is not None
    is_under_way = is_followed and before.state == "fetching"
    # What was known of the former file, and was wrong with it, no longer holds.
    row = before if has_file or is_under_way else before._replace(
        fetch=source.fetch, state="fetching", reason="", since_ms=now_ms(), sha256=asked.sha256, problem=None,
    )  # fmt: skip
    row = _given(row, asked)
    return row._replace(since_ms=before.since_ms) if before.state == row.state else row


def _given(row: ModelRow, asked: AddModel) -> ModelRow:
    """Return the row with what is known of a file that is used in place, and the settings that are given."""
    if asked.path is not None:
        row = row._replace(
            state="ready", reason="", path=asked.path, head=asked.head, bytes=asked.bytes,
            sha256=asked.sha256, problem=None,
        )  # fmt: skip
    given: dict[str, Any] = {"memory_bytes": asked.memory_bytes, "context": asked.context}
    return row._replace(**{name: value for name, value in given.items() if value is not None})
