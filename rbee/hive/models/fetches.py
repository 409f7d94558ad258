"""The fetches of this hive, and the removal of files from its store.

The hive may not write to the store: it writes requests, which rbee-fetch@.service carries out. A request is
kept until it was carried out, so that a restarted hive resumes it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

from rbee.errors import BadInput, NameTaken, RbeeError, Stopping, TooMany, UnknownFetch
from rbee.hive.models.fetch import KnownFetch, now_ms
from rbee.hive.models.removals import Removals
from rbee.hive.models.unit import Asks, FetchUnits, Units
from rbee.modelfile.store import PART, RESULT, VERSION, Store, StoreRequest
from rbee.modelfile.url import parsed, shown
from rbee.narration import FETCH_CANCELLED, FETCHING, FILE_REMOVED, Narrator
from rbee.scope import Scope
from rbee.wire.models import Fetch, FetchView

log = logging.getLogger("rbee")

RUNNING_MOST = 16
"""The most fetches at once."""

ENDED_MOST = 200
"""The most ended fetches whose views are kept in RAM; the store has their results."""

KEEP = 7 * 86400
"""Seconds for which the part of a failed fetch is kept."""


class Fetches:
    """All fetches and removals. open() resumes those of an earlier hive process."""

    def __init__(self, scope: Scope, units: Units, control: Asks, story: Narrator) -> None:
        self._scope = scope
        self._store = Store(scope.models)
        self._units = FetchUnits(scope, units, control)
        self._removals = Removals(scope, self._store, self._units)
        self._story = story
        self._known: dict[str, KnownFetch] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @classmethod
    @asynccontextmanager
    async def open(cls, scope: Scope, units: Units, control: Asks, story: Narrator) -> AsyncIterator[Fetches]:
        """Yield the fetches, resumed; close() them afterwards, which leaves their units running."""
        fetches = cls(scope, units, control, story)
        fetches.resume()
        try:
            yield fetches
        finally:
            await fetches.close()

    def resume(self) -> None:
        """Resume the requests that are left, and remove what is left of outdated fetches."""
        requests = self._units.requests()
        for fetch_id, request in requests.items():
            if request.fetch is not None:
                self._follow(KnownFetch.begun(request.fetch))
            elif request.forget is not None:
                self._begin(partial(self._forget, fetch_id))
            else:
                self._begin(partial(self._removals.carry_out, fetch_id))
        for fetch_id in self._outdated(set(requests)):
            self._begin(partial(self._forget, fetch_id))

    async def close(self) -> None:
        """Stop following the units, which continue."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # What the queen asks

    async def fetch(self, fetch: Fetch, job_id: str | None = None) -> FetchView:
        """Start a fetch, unless it is under way or done, and return it.

        Raises BadInput, NameTaken and TooMany.
        """
        if self._scope.kind == "user":
            raise BadInput("only the machine's own rbee fetches models", hint="Use rbeectl without --user.")
        parsed(fetch.url, has_sum=fetch.sha256 is not None)
        async with self._lock(fetch.id):
            known = self._find(fetch.id)
            if known is not None and known.is_under_way:
                if known.request is None or not _is_same(known.request, fetch):
                    raise NameTaken(f"the fetch {fetch.id} is under way for another file")
                return known.view
            if known is not None and known.view.state == "done" and fetch.sha256 in (None, known.view.sha256):
                return known.view
            if sum(one.is_under_way for one in self._known.values()) >= RUNNING_MOST:
                raise TooMany(
                    f"this hive is fetching {RUNNING_MOST} files, the limit",
                    hint="Try again when one has arrived.",
                )
            await self._units.write(fetch.id, StoreRequest(fetch=fetch, job_id=job_id))
            known = KnownFetch.begun(fetch)
            self._follow(known)
        about = {"model": fetch.model, "fetch": fetch.id} | ({"job_id": job_id} if job_id else {})
        self._story.narrate(FETCHING, f"fetching {fetch.model} from {shown(fetch.url)}", **about)
        return known.view

    async def state(self, fetch_id: str, *, after: int | None = None, wait: float = 0) -> FetchView:
        """Return a fetch; with `after` as soon as its serial is larger, or after `wait` seconds.

        Raises UnknownFetch.
        """
        known = self._find(fetch_id)
        if known is None:
            raise UnknownFetch(f"there is no fetch {fetch_id}")
        return known.view if after is None else await known.later(after, wait)

    async def cancel(self, fetch_id: str) -> FetchView:
        """Cancel a fetch, and remove what has arrived, unless it is done. Raises UnknownFetch, RbeeError."""
        async with self._lock(fetch_id):
            known = self._find(fetch_id)
            if known is None:
                raise UnknownFetch(f"there is no fetch {fetch_id}")
            if known.view.state in ("done", "cancelled"):
                return known.view
            if known.task is not None:
                known.task.cancel()
                await asyncio.gather(known.task, return_exceptions=True)
            await self._removals.forget(fetch_id)
            known.change(state="cancelled", reason="", bytes=0)
        text = f"the fetch of {known.view.model} is cancelled"
        self._story.narrate(FETCH_CANCELLED, text, model=known.view.model, fetch=fetch_id)
        return known.view

    async def remove_file(self, sha256: str) -> None:
        """Remove a file from the store; it is not an error if it does not exist. Raises RbeeError."""
        async with self._lock(sha256):
            if not await self._removals.remove(sha256):
                return
        self._known = {fetch_id: one for fetch_id, one in self._known.items() if one.view.sha256 != sha256}
        self._story.narrate(FILE_REMOVED, f"removed the file {sha256[:12]}…", sha256=sha256)

    # Following

    def _find(self, fetch_id: str) -> KnownFetch | None:
        known = self._known.get(fetch_id)
        if known is None and (result := self._store.read_result(fetch_id)) is not None:
            known = KnownFetch(FetchView(fetch_id, result.model, "failed", now_ms()), None)
            known.settle(result, self._store)
            self._keep(known)
        return known

    def _keep(self, known: KnownFetch) -> None:
        self._known.pop(known.view.id, None)
        self._known[known.view.id] = known
        ended = [fetch_id for fetch_id, one in self._known.items() if not one.is_under_way]
        for fetch_id in ended[: max(len(ended) - ENDED_MOST, 0)]:
            if fetch_id != known.view.id:
                del self._known[fetch_id]

    def _follow(self, known: KnownFetch) -> None:
        self._keep(known)
        known.task = self._begin(partial(self._run, known))

    async def _run(self, known: KnownFetch) -> None:
        fetch_id = known.view.id
        try:
            state = await self._units.run(fetch_id, known.heard)
        except Stopping:
            known.change(reason="rbee is being stopped; the fetch resumes when the hive next starts")
        except RbeeError as error:
            known.change(state="failed", reason=error.message)
        else:
            known.ended(state, self._store)
        if known.view.state == "fetching":
            return
        self._units.drop(fetch_id)
        async with self._lock(fetch_id):
            if self._known.get(fetch_id) is known:  # and it is not fetched again by now
                await self._units.settle(fetch_id)

    # Removing

    async def _forget(self, fetch_id: str) -> None:
        async with self._lock(fetch_id):
            await self._removals.forget(fetch_id)

    def _outdated(self, requested: set[str]) -> list[str]:
        """Return the fetches whose files are older than KEEP, unless what they fetched is in the store."""
        store, kept_since = self._store, time.time() - KEEP
        left: set[str] = set()
        for path_of, suffix in ((store.part, PART), (store.version, VERSION), (store.result, RESULT)):
            for fetch_id in set(store.ids(suffix)) - requested:
                result = store.read_result(fetch_id)
                if result is not None and result.sha256 is not None and store.file(result.sha256) is not None:
                    continue
                if _changed_at(path_of(fetch_id)) < kept_since:
                    left.add(fetch_id)
        return sorted(left)

    # Tasks

    def _lock(self, fetch_id: str) -> asyncio.Lock:
        return self._locks.setdefault(fetch_id, asyncio.Lock())

    def _begin(self, work: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _logged(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except RbeeError as error:
            log.warning("%s", error.message)


def _is_same(one: Fetch, other: Fetch) -> bool:
    return (one.url, one.sha256) == (other.url, other.sha256)


def _changed_at(path: Path) -> float:
    """Return when a file was last changed, in seconds since 1970; now if it does not exist."""
    try:
        return path.stat().st_mtime
    except OSError:
        return time.time()
