"""A worker: what it is to be, and the state that it is in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from rbee.hive.work import Serials
from rbee.text import printable, shortened
from rbee.wire.workers import HiveWorker, StartWorker, WorkerState

LOG_LINES = 20
LOG_TEXT = 500
"""Lines of an engine that failed, and characters of one."""

OVER: tuple[WorkerState, ...] = ("stopped", "failed")


class Worker:
    """A worker's state, which only grows newer: its serial grows with each change.

    `job_id` is the job that it was started for, until it is ready.
    """

    def __init__(
        self,
        start: StartWorker,
        serials: Serials,
        *,
        job_id: str | None = None,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.start = start
        self.job_id = job_id
        self.state: WorkerState = "loading"
        self.reason = ""
        self.percent: float | None = None
        self.pid: int | None = None
        self.log: tuple[str, ...] = ()
        self.last_end = ""
        """How its engine ended last, for a worker that is given up."""
        self.is_file_missing = False
        """Whether it failed because there was no model to give to its engine."""
        self.began = time.monotonic()
        self._serials = serials
        self._clock_ms = clock_ms
        self.since_ms = clock_ms()
        self.serial = serials.next()
        self._news = asyncio.Event()

    @property
    def id(self) -> str:
        """Its name."""
        return self.start.id

    @property
    def is_over(self) -> bool:
        """Has it stopped, or failed for good?"""
        return self.state in OVER

    def change(
        self,
        state: WorkerState,
        reason: str = "",
        *,
        percent: float | None = None,
        pid: int | None = None,
        log: Sequence[str] = (),
    ) -> bool:
        """Take on a state; return whether that, or its reason, is another one than before."""
        before = self.state, self.reason
        changed = before != (state, reason)
        lines = tuple(shortened(printable(line), LOG_TEXT) for line in log[-LOG_LINES:])
        if not changed and (self.percent, self.pid, self.log) == (percent, pid, lines):
            return False
        if self.state != state:
            self.since_ms = self._clock_ms()
        self.state, self.reason, self.percent, self.pid, self.log = state, reason, percent, pid, lines
        self.serial = self._serials.next()
        self._news.set()
        self._news = asyncio.Event()
        return changed

    async def newer(self, serial: int, seconds: float) -> None:
        """Wait until its serial is larger, or so many seconds."""
        try:
            async with asyncio.timeout(seconds):
                while self.serial <= serial:
                    await self._news.wait()
        except TimeoutError:
            pass

    def view(self, used: int | None = None, peak: int | None = None) -> HiveWorker:
        """Return it as the hive reports it, with the bytes that it uses and has used."""
        start = self.start
        return HiveWorker(
            id=start.id,
            model=start.model,
            engine=start.engine,
            pool=start.pool,
            context=start.context,
            claim_bytes=start.claim_bytes,
            state=self.state,
            reason=self.reason,
            since_ms=self.since_ms,
            serial=self.serial,
            percent=self.percent,
            used_bytes=used,
            peak_bytes=peak,
            pid=self.pid,
            slots=start.slots,
            log=self.log,
            is_file_missing=self.is_file_missing,
        )
