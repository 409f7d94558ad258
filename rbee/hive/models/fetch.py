"""One fetch as the hive knows it: its view, and those who wait for it to change."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from typing import Any

from rbee.errors import TEXT_LIMIT
from rbee.modelfile import progress
from rbee.modelfile.store import FetchResult, Store
from rbee.systemd.unit import UnitState
from rbee.text import shortened
from rbee.wire.models import Fetch, FetchView


def now_ms() -> int:
    """Return milliseconds since 1970. Serials start from it, so that they also grow across restarts."""
    return int(time.time() * 1000)


class KnownFetch:
    """A fetch. `request` is None for one that ended before this hive started."""

    def __init__(self, view: FetchView, request: Fetch | None) -> None:
        self.view = view
        self.request = request
        self.task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @classmethod
    def begun(cls, request: Fetch) -> KnownFetch:
        """Return a fetch that begins now."""
        return cls(FetchView(request.id, request.model, "fetching", now_ms()), request)

    @property
    def is_under_way(self) -> bool:
        """Whether its unit runs, as far as the hive knows."""
        return self.view.state == "fetching" and self.task is not None and not self.task.done()

    def change(self, **fields: Any) -> None:
        """Change fields of the view; if it differs now, give it a new serial and wake those who wait."""
        view = self.view._replace(**fields)
        if view == self.view:
            return
        self.view = view._replace(serial=max(self.view.serial + 1, now_ms()))
        self._changed.set()
        self._changed = asyncio.Event()

    async def later(self, after: int, wait: float) -> FetchView:
        """Return the view as soon as its serial is larger than `after`, or after `wait` seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                while self.view.serial <= after:
                    await self._changed.wait()
        return self.view

    # What its unit does

    def heard(self, state: UnitState) -> None:
        """Take the progress from a new state of the unit."""
        now = progress.read(state.status_text)
        if now is not None and not state.is_stopped:
            self.change(bytes=now.bytes, total=now.total, reason=shortened(now.note, TEXT_LIMIT))

    def ended(self, state: UnitState, store: Store) -> None:
        """Take the outcome when the unit has ended: from its result in the store, or from its state."""
        result = store.read_result(self.view.id)
        # From 200 on it is a status of systemd: rbee-fetch did not run, and a result is an earlier one.
        if result is not None and state.exit_status < 200:
            self.settle(result, store)
        elif state.active == "failed":
            self.change(
                state="failed", reason=f"rbee-fetch ended without a result: {state.end or state.result}"
            )
        else:
            self.change(reason="it was stopped; it resumes when the hive next starts")

    def settle(self, result: FetchResult, store: Store) -> None:
        """Change the view to a result."""
        meta = None if result.sha256 is None else store.read_meta(result.sha256)
        path = None if meta is None else store.file(meta.sha256)
        if result.state == "failed":
            self.change(state="failed", reason=result.reason, bytes=result.bytes)
        elif meta is None or path is None:
            self.change(state="failed", reason="the file is no longer in the store")
        else:
            self.change(
                state="done",
                reason="",
                bytes=meta.bytes,
                total=meta.bytes,
                path=str(path),
                sha256=meta.sha256,
                head=meta.head,
            )
