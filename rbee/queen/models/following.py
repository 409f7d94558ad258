"""Follows a hive's fetch of a model's file to its end, and stores and narrates the result.

Each model whose file is being fetched has one Following, whether or not a job waits for it: it continues
after the job's client has left and after the queen was restarted, and waits for a hive that is offline.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rbee.errors import (
    CatalogFailed,
    FetchFailed,
    HiveNotOnline,
    NameTaken,
    NotRunning,
    RbeeError,
    Stopping,
    TimedOut,
    TooMany,
    Unreachable,
)
from rbee.narration import MODEL_FAILED, MODEL_FETCHING, MODEL_READY, MODEL_WAITS, Event, Narrator
from rbee.queen.changes import Changes
from rbee.queen.hives.hives import Hives
from rbee.queen.models.describe import describe_model, describe_progress
from rbee.queen.models.model import Model
from rbee.queen.models.models import Models
from rbee.queen.models.source import Source
from rbee.scope import Scope
from rbee.wire.models import Fetch, FetchView

log = logging.getLogger("rbee")

REQUEST_TIMEOUT = 10.0
"""Seconds for a hive's answer, in addition to the time for which the hive waits for a change."""

RETRY_FIRST, RETRY_MOST = 1.0, 15.0
"""Seconds before a hive that is online and did not answer is asked again: doubled each time."""

POLL_LEAST = 0.2
"""Least seconds between two requests for the state of a fetch, whose bytes may change all the time."""

STEP = 10
"""Progress is narrated each time that this many percent more have arrived."""

PAUSE_FIRST, PAUSE_MOST = 5.0, 60.0
"""Seconds after which it is narrated without such a step: doubled each time, to keep stories short."""

PASSING = (HiveNotOnline, NotRunning, Unreachable, TimedOut, Stopping, TooMany)
"""Errors of a hive that is away or busy: the fetch continues without the queen."""


@dataclass(frozen=True)
class FetchTools:
    """What following a fetch needs. `changes` is announced when a hive comes online or goes offline."""

    models: Models
    hives: Hives
    narrator: Narrator
    scope: Scope
    changes: Changes
    clock: Callable[[], float]


class Following:
    """Follows the fetch of `model`. `fetch` is the request to its hive, None if the hive already has it.

    `fetch` has the whole URL with its secrets, and is dropped once the hive has it.
    """

    def __init__(self, model: Model, tools: FetchTools, fetch: Fetch | None, job_id: str | None) -> None:
        assert model.row.fetch is not None
        self._model = model
        self._tools = tools
        self._fetch = fetch
        self._fetch_id = model.row.fetch
        self._job_id = job_id
        self._stories: list[Narrator] = []
        self._pace = _Pace(tools.clock)
        self._task: asyncio.Task[None] | None = None
        self.waits: str | None = None
        """Why it waits for the hive; None if it does not."""
        self.changes = Changes()
        """Announced when `waits` changes, and at the end."""
        self.outcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the model is ready; its exception is the reason if the fetch failed."""
        self.outcome.add_done_callback(lambda outcome: outcome.cancelled() or outcome.exception())

    @contextmanager
    def narrated_to(self, story: Narrator) -> Iterator[None]:
        """Narrate to a job's story within the context; without a story, lines go to the queen's narrator."""
        self._stories.append(story)
        try:
            yield
        finally:
            self._stories.remove(story)

    async def run(self) -> None:
        """Follow the fetch to its end, and complete `outcome`."""
        self._task = asyncio.current_task()
        try:
            await self._follow()
        except RbeeError as error:
            self._end(error)
        except Exception as error:
            log.exception("following the fetch of %s failed", self._model.name)
            self._end(RbeeError(f"internal error: {error!r}"))
        finally:
            self._end(Stopping("the queen is being stopped", hint="The fetch continues. Try again."))

    def ask_again(self, fetch: Fetch) -> None:
        """Send the hive the request again, within WAIT_MAX seconds, as its unit may have been stopped."""
        self._fetch = fetch

    def cancel(self, error: RbeeError) -> None:
        """Stop following the fetch; `outcome` gets the error."""
        self._end(error)
        if self._task is not None:
            self._task.cancel()

    def _end(self, error: RbeeError | None) -> None:
        if not self.outcome.done():
            self._model.progress = None
            self.outcome.set_exception(error) if error is not None else self.outcome.set_result(None)
        self.changes.announce()

    # The fetch

    async def _follow(self) -> None:
        serial, retry = 0, RETRY_FIRST
        while True:
            try:
                await self._until_online()
                view = await self._ask(serial)
            except PASSING as error:
                self._wait(f"hive {self._model.row.hive_id} does not answer: {error.message}")
                await asyncio.sleep(retry)
                retry = min(2 * retry, RETRY_MOST)
                continue
            except RbeeError as error:
                await self._fail(error.message, error.hint)
                return
            if view is None:
                continue
            self._wait(None)
            serial, retry = view.serial, RETRY_FIRST
            if view.state != "fetching":
                await self._finish(view)
                return
            self._show(view)
            await asyncio.sleep(POLL_LEAST)

    async def _ask(self, serial: int) -> FetchView | None:
        """Send the request, or ask for a state after `serial`; None if the hive lost it: send it again."""
        hive = self._tools.hives.hive(self._model.row.hive_id)
        client = await hive.reach()
        fetch, self._fetch = self._fetch, None
        if fetch is not None:
            try:
                return await client.fetch(fetch, job_id=self._job_id, timeout=REQUEST_TIMEOUT)
            except PASSING:
                self._fetch = self._fetch or fetch
                raise
            except NameTaken:
                pass  # the same file is being fetched already, by a URL with another password
        try:
            async with hive.workload.polls:
                return await client.fetch_state(self._fetch_id, after=serial, timeout=REQUEST_TIMEOUT)
        except RbeeError as error:
            if error.status != 404:
                raise
            self._fetch = self._fetch or fetch_again(self._model)
            if self._fetch is None:
                raise FetchFailed(
                    f"hive {hive.id} has lost the fetch, and the queen does not keep the secrets of its URL",
                    hint=self._again(),
                ) from error
            return None

    async def _until_online(self) -> None:
        """Wait until the hive is online. Raises UnknownHive if it is removed from the catalog."""
        hives, hive_id = self._tools.hives, self._model.row.hive_id

        def is_online() -> bool:
            hive = hives.find(hive_id)
            return hive is None or hive.standing.is_online

        hive = hives.hive(hive_id)
        if not hive.standing.is_online:
            life = hive.standing.life
            # A queen that has just started does not know the hive's state yet.
            is_narrated = life.state in ("suspect", "offline")
            self._wait(f"hive {hive_id} is {life.state}: {life.reason}", is_narrated=is_narrated)
        await self._tools.changes.until(is_online)
        hives.hive(hive_id)

    async def _finish(self, view: FetchView) -> None:
        fault = None
        if view.state != "done":
            fault = view.reason or f"it is {view.state}"
        elif view.path is None or view.head is None:
            fault = "its hive does not report where the file is, or what is in it"
        if fault is not None:
            await self._fail(fault, self._again())
            return
        model = self._model
        fields = {"path": view.path, "head": view.head, "bytes": view.bytes, "sha256": view.sha256}
        await self._tools.models.set_state(model, "ready", fields=fields)
        self._narrate(MODEL_READY, f"model {model.name} is ready: {describe_model(model.row)}")
        self._end(None)

    async def _fail(self, reason: str, hint: str | None) -> None:
        """Store why it failed; the same command tries again."""
        try:
            await self._tools.models.set_state(self._model, "failed", reason)
        except CatalogFailed as error:
            log.error("model %s failed, and that could not be stored: %s", self._model.name, error.message)
        self._narrate(MODEL_FAILED, f"model {self._model.name} could not be fetched: {reason}")
        self._end(FetchFailed(f"model {self._model.name} could not be fetched: {reason}", hint=hint))

    def _again(self) -> str:
        return f"To try again: {self._tools.scope.rbeectl(f'model add {self._model.name} URL')}"

    # What is narrated

    def _show(self, view: FetchView) -> None:
        self._model.progress = 100 * min(view.bytes / view.total, 1) if view.total else None
        if self._pace.is_due(self._model.progress):
            how_far = describe_progress(view.bytes, view.total)
            because = f", {view.reason}" if view.reason else ""
            self._narrate(MODEL_FETCHING, f"fetching {self._model.name}, {how_far}{because}")

    def _wait(self, reason: str | None, *, is_narrated: bool = True) -> None:
        if is_narrated and reason is not None and self.waits is None:
            self._narrate(MODEL_WAITS, f"fetching {self._model.name} waits: {reason}")
        if reason != self.waits:
            self.waits = reason
            self.changes.announce()

    def _narrate(self, event: Event, text: str) -> None:
        if not self._stories:
            row = self._model.row
            self._tools.narrator.narrate(event, text, hive=row.hive_id, model=row.name)
        for story in self._stories:
            story.narrate(event, text)


class _Pace:
    """Decides when progress is narrated again."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._step = -1
        self._at = float("-inf")
        self._pause = PAUSE_FIRST

    def is_due(self, percent: float | None) -> bool:
        """Is it to be narrated now? With percent None only the time counts."""
        now, step = self._clock(), -1 if percent is None else int(percent // STEP)
        if step <= self._step and now - self._at < self._pause:
            return False
        self._pause = PAUSE_FIRST if step > self._step else min(2 * self._pause, PAUSE_MOST)
        self._step, self._at = max(step, self._step), now
        return True


def fetch_again(model: Model) -> Fetch | None:
    """Return the request for a model's file, from its row; None if the row does not have all of its URL."""
    row = model.row
    if row.fetch is None or not Source(row.source, row.fetch).is_whole:
        return None
    return Fetch(row.fetch, row.name, row.source, row.sha256)
