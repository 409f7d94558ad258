"""One fetch as the hive knows it: its view, and who waits for a change of it."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import replace
from typing import Any

from rbee.errors import TEXT_LIMIT
from rbee.modelfile import progress
from rbee.modelfile.store import FetchResult, Store
from rbee.systemd.unit import UnitState
from rbee.text import shortened
from rbee.wire.models import Fetch, FetchView


def now_ms() -> int:
    """Milliseconds since 1970: serials begin there, so that they grow over a restart of the hive, too."""
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
        """A fetch that begins now."""
        return cls(FetchView(request.id, request.model, "fetching", now_ms()), request)

    @property
    def is_under_way(self) -> bool:
        """Does its unit run, as far as is known?"""
        return self.view.state == "fetching" and self.task is not None and not self.task.done()

    def change(self, **fields: Any) -> None:
        """Change the view, if it differs, and wake who waits for that."""
        view = replace(self.view, **fields)
        if view == self.view:
            return
        self.view = replace(view, serial=max(self.view.serial + 1, now_ms()))
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
        """The unit's state has changed."""
        told = progress.read(state.status_text)
        if told is not None and not state.is_stopped:
            self.change(bytes=told.bytes, total=told.total, reason=shortened(told.note, TEXT_LIMIT))

    def ended(self, state: UnitState, store: Store) -> None:
        """The unit has ended: note what came of it."""
        result = store.read_result(self.view.id)
        if result is not None and state.exit_status < 200:  # systemd's own, if it did not even run
            self.settle(result, store)
        elif state.active == "failed":
            self.change(
                state="failed", reason=f"rbee-fetch did not end by itself: {state.end or state.result}"
            )
        else:
            self.change(reason="it was stopped, and goes on when the hive is started next")

    def settle(self, result: FetchResult, store: Store) -> None:
        """Note a result."""
        meta = None if result.sha256 is None else store.read_meta(result.sha256)
        path = None if meta is None else store.file(meta.sha256)
        if result.state == "failed":
            self.change(state="failed", reason=result.reason, bytes=result.bytes)
        elif meta is None or path is None:
            self.change(state="failed", reason="the file is not in the store any more")
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
