"""Workers that could not be started: why, and when a request may start the next one."""

from __future__ import annotations

from dataclasses import dataclass

from rbee.errors import WorkerFailed
from rbee.queen.hives.liveness import Clocks
from rbee.text import shown_span
from rbee.wire.workers import HiveWorker, WorkerView

BACK_OFF = (0.0, 5.0, 15.0, 30.0, 60.0, 120.0, 300.0)
"""Seconds after the first failure in a row, the second, and so on, before a request starts a worker again."""


@dataclass(frozen=True, slots=True)
class Failure:
    """The last failure of a model's workers, the `count`-th in a row; `again_at` is monotonic."""

    reason: str
    hive_id: str
    seen: HiveWorker
    count: int
    since_ms: int
    again_at: float


class Failures:
    """The models whose last worker has failed."""

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self._failures: dict[str, Failure] = {}

    def find(self, model: str) -> Failure | None:
        """Return a model's failure, or None."""
        return self._failures.get(model)

    def note(self, hive_id: str, seen: HiveWorker) -> Failure:
        """Record that a worker has failed, and return the failure; the same worker counts once."""
        before = self._failures.get(seen.model)
        if before is not None and (before.hive_id, before.seen.id) == (hive_id, seen.id):
            return before
        count = 1 if before is None else before.count + 1
        wait = BACK_OFF[min(count, len(BACK_OFF)) - 1]
        failure = Failure(
            seen.reason or "it ended without a reason",
            hive_id,
            seen,
            count,
            self._clocks.wall_ms(),
            self._clocks.monotonic() + wait,
        )
        self._failures[seen.model] = failure
        return failure

    def forget(self, model: str) -> None:
        """Forget a model's failures: a worker is ready, or an operator wants it to be tried again."""
        self._failures.pop(model, None)

    def pause(self, model: str) -> float:
        """Return the seconds for which no worker of the model may be started yet."""
        failure = self._failures.get(model)
        return 0.0 if failure is None else max(0.0, failure.again_at - self._clocks.monotonic())

    def error(self, failure: Failure, hint: str) -> WorkerFailed:
        """Return the error of a failure, for those who wait for the model."""
        seen = failure.seen
        text = f"{seen.model} could not be started on {failure.hive_id} {seen.pool}: {failure.reason}"
        lines = f"; the last lines of {seen.engine}: {' | '.join(seen.log[-5:])}" if seen.log else ""
        pause, again = self.pause(seen.model), ""
        if pause > 0:
            again = f"; failure {failure.count} in a row, requests may start it again in {shown_span(pause)}"
        error = WorkerFailed(text + lines + again, hint=hint)
        error.summary = text + again
        return error

    def view(self, failure: Failure, *, is_pinned: bool) -> WorkerView:
        """Return the failed worker as clients see it."""
        seen = failure.seen
        return WorkerView(
            id=seen.id,
            model=seen.model,
            hive_id=failure.hive_id,
            state="failed",
            reason=failure.reason,
            since_ms=failure.since_ms,
            engine=seen.engine,
            pool=seen.pool,
            context=seen.context,
            claim_bytes=seen.claim_bytes,
            peak_bytes=seen.peak_bytes,
            is_pinned=is_pinned,
            log=seen.log,
        )
