"""A worker: its specification and its state."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from rbee.hive.work import Serials
from rbee.text import printable, shortened
from rbee.wire.workers import HiveWorker, StartWorker, WorkerState

LOG_LINES = 20
LOG_TEXT = 500
"""The most lines that are kept of a failed engine's log, and the most characters of a line."""

OVER: tuple[WorkerState, ...] = ("stopped", "failed")


class Worker:
    """A worker, whose serial grows with each change of its state.

    `job_id` is the job that it was started for, None once it is ready.
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
        """How its engine ended last, which is the reason of a worker that is given up."""
        self.peak_bytes: int | None = None
        """The most of its pool that it has used, once it has ended; None if that is not known."""
        self.fills_claim = False
        """Whether its engine takes what was claimed, whatever the model needs."""
        self.is_file_missing = False
        self.is_file_found = False
        """Whether it failed because the model's file was gone."""
        self.began = time.monotonic()
        self._serials = serials
        self._clock_ms = clock_ms
        self.since_ms = clock_ms()
        self.serial = serials.next()
        self._news = asyncio.Event()

    @property
    def id(self) -> str:
        """The worker's id."""
        return self.start.id

    @property
    def is_over(self) -> bool:
        """Whether it has stopped, or has failed for good."""
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
        """Set the state; return whether the state or its reason is different from before."""
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
        """Wait until its serial is larger than `serial`, for `seconds` at most."""
        try:
            async with asyncio.timeout(seconds):
                while self.serial <= serial:
                    await self._news.wait()
        except TimeoutError:
            pass

    def view(self, used: int | None = None, peak: int | None = None) -> HiveWorker:
        """Return it as the hive reports it. `used` and `peak` are bytes, None if unknown."""
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
            peak_bytes=peak if peak is not None else self.peak_bytes,
            pid=self.pid,
            slots=start.slots,
            log=self.log,
            is_file_missing=self.is_file_missing,
            is_file_found=self.is_file_found,
            fills_claim=self.fills_claim,
        )
