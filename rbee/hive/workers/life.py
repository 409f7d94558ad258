"""The life of a worker: follows its unit from start to end, and narrates what happens."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import NamedTuple

from rbee.errors import RbeeError, Stopping, WorkerFailed
from rbee.hive.memory.book import Book
from rbee.hive.memory.ledger import RAM
from rbee.hive.units import Units
from rbee.hive.work import Work
from rbee.hive.workers.enginelog import LATE, EngineLog, Start
from rbee.hive.workers.judge import RESTART_DELAY, Verdict, delay_of, end_of, judge
from rbee.hive.workers.specification import Specifications
from rbee.hive.workers.worker import OVER, Worker
from rbee.narration import (
    MEMORY_HELD,
    WORKER_FAILED,
    WORKER_LOADING,
    WORKER_READY,
    WORKER_RESTARTED,
    WORKER_STOPPED,
    Event,
    Narrator,
)
from rbee.scope import Scope, worker_unit
from rbee.systemd.links import invocation_of
from rbee.systemd.unit import UnitState
from rbee.text import shown_span
from rbee.wire.workers import Holder

log = logging.getLogger("rbee")

RETRY_INTERVAL = 1.0
"""Seconds until systemd is asked again after an error."""

LOOK_AGAIN = 60.0
"""Seconds after which the unit's state is read even without a signal, in case that one was lost."""

STEADY = 1800.0
"""Seconds after which earlier ends of the engine count no more; StartLimitIntervalSec= of its unit."""

GIB = 2**30


class Parts(NamedTuple):
    """What the lives of all workers share."""

    scope: Scope
    specifications: Specifications
    book: Book
    units: Units
    narrator: Narrator
    work: Work
    engine_log: EngineLog


class Life:
    """Follows a worker until it is over. `gone` is called when it has stopped and can be forgotten."""

    def __init__(self, worker: Worker, parts: Parts, gone: Callable[[Worker], None]) -> None:
        self.worker = worker
        self.unit = worker_unit(worker.id)
        self._parts = parts
        self._gone = gone
        self._preparing: asyncio.Task[None] | None = None
        self._cut: RbeeError | None = None
        """Why its start is not continued."""
        self._running: asyncio.Task[None] | None = None
        self._starting: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._has_been_ready = False
        self._ready_at: float | None = None
        self._restarts_before = 0
        """How often systemd had restarted the unit before it was ready for STEADY seconds."""
        self._repeated = ""
        """The invocation of the start whose lines were last repeated."""
        self._repeated_until = 0.0
        """When the last line of that start can have come, in seconds since 1970."""

    # Start

    async def start(self, prepare: Callable[[], Awaitable[None]]) -> None:
        """Have the start prepared, and then begin. Raises what `prepare` raises: then nothing is left of it.

        Raises WorkerFailed if the worker is stopped meanwhile, and Stopping if its hive is.
        """
        # A task of its own, which stop() ends: otherwise a start would go on after its worker has stopped.
        self._preparing = asyncio.ensure_future(self._prepared(prepare))
        try:
            await self._preparing
        except BaseException as error:
            # Once it has begun, a cancelled request leaves it running; a stop removes what is left itself.
            if self._running is None and self._stopping is None:
                self._parts.book.release(self.worker.id)
                self._parts.specifications.remove(self.worker.id)
                self._gone(self.worker)
            if isinstance(error, asyncio.CancelledError) and self._cut is not None:
                raise self._cut from None
            raise

    async def _prepared(self, prepare: Callable[[], Awaitable[None]]) -> None:
        await prepare()
        start = self.worker.start
        self._narrate(WORKER_LOADING, f"loading {start.model} on {start.pool} with {start.engine}")
        self.begin(is_new=True)
        self._parts.work.changed()

    # Follow

    def begin(self, *, is_new: bool) -> None:
        """Follow the unit, and start it if `is_new`; both in the background."""
        changed = self._parts.units.follow(self.unit)
        if is_new:
            self._starting = asyncio.ensure_future(self._parts.units.start(self.unit))
            self._starting.add_done_callback(partial(_note_end, changed))
        self._running = asyncio.ensure_future(self._follow(changed))

    async def end(self) -> None:
        """Stop following; the worker continues without its hive."""
        self._cut = Stopping(f"the hive is being stopped, and does not start the worker {self.worker.id}")
        await _cancel(self._preparing)
        for task in (self._running, self._starting, self._stopping):
            await _cancel(task)

    async def _follow(self, changed: asyncio.Event) -> None:
        while not self.worker.is_over:
            changed.clear()
            try:
                await self._look()
            except RbeeError as error:
                log.warning("the worker %s cannot be followed, retrying: %s", self.worker.id, error)
                await asyncio.sleep(RETRY_INTERVAL)
                changed.set()
            except Exception:
                log.exception("following the worker %s failed", self.worker.id)
                await asyncio.sleep(RETRY_INTERVAL)
                changed.set()
            if not self.worker.is_over:
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_AGAIN):
                        await changed.wait()

    async def _look(self) -> None:
        starting = self._starting
        is_asked = starting is None or starting.done()
        state = await self._parts.units.state(self.unit)
        if self._ready_at is not None and not state.is_active:
            if time.monotonic() - self._ready_at >= STEADY:
                self._restarts_before = state.restarts
            self._ready_at = None
        state = state._replace(restarts=max(0, state.restarts - self._restarts_before))
        verdict = judge(state, self.worker.start, self.worker.last_end, self._parts.scope)
        if verdict is not None and verdict.state in OVER and not is_asked:
            return  # systemd has not started it yet: that is how an earlier worker of this name ended
        if verdict is not None and verdict.state == "stopped" and not self._has_been_ready:
            verdict = _refused(starting) or verdict  # what was ready has been started, later if not at once
        if verdict is not None:
            await self._take(state, verdict)

    async def _take(self, state: UnitState, verdict: Verdict) -> None:
        worker = self.worker
        before = worker.state
        if verdict.state == "failed":
            await self._fail(state, verdict)
            return
        if verdict.state == "stopped":
            await self._clean("its unit ended, and not on the hive's request")
            return
        if state.sub.startswith("auto-restart"):
            worker.last_end = end_of(state, worker.start, self._parts.scope)
            self._repeat_lines(state)
        if verdict.state == "ready" and before != "ready" and worker.start.pool != RAM:
            # Before anybody hears that it is ready: what a card holds is known by a reading only.
            await self._parts.book.loaded(worker.id)
        changed = worker.change(verdict.state, verdict.reason, percent=verdict.percent, pid=verdict.pid)
        if verdict.state == "ready" and before != "ready":
            await self._is_ready(state)
        elif changed and state.sub.startswith("auto-restart"):
            worker.began = time.monotonic()
            self._parts.specifications.set_wait(worker.id, delay_of(state.restarts) - RESTART_DELAY)
            self._narrate(WORKER_RESTARTED, f"{self._name} has ended: {verdict.reason}")
        if changed:
            self._parts.work.changed()

    async def _is_ready(self, state: UnitState) -> None:
        worker = self.worker
        self._has_been_ready, self._ready_at = True, time.monotonic()
        seconds = shown_span(time.monotonic() - worker.began)
        self._narrate(WORKER_READY, f"{self._name} is ready in {seconds}")
        self._repeat_lines(state)
        worker.job_id = None  # what happens from now on is not part of the job of its start
        if worker.start.pool == RAM:
            await self._parts.book.loaded(worker.id)

    async def _fail(self, state: UnitState, verdict: Verdict) -> None:
        worker, parts, reason = self.worker, self._parts, verdict.reason
        tail = await parts.units.log(self.unit)
        lines = [entry.text for entry in tail.entries]
        held = await self._release()
        worker.is_file_missing, worker.is_file_found = verdict.is_file_missing, verdict.is_file_found
        worker.change("failed", f"{reason}; {held}" if held else reason, log=lines)
        self._narrate(WORKER_FAILED, f"{self._name} failed: {worker.reason}")
        self._repeat_lines(state)
        worker.job_id = None
        parts.units.unfollow(self.unit)
        parts.work.changed()

    # Stop

    async def stop(self) -> None:
        """Stop the worker, and return when its memory is free again, or its holder is in the worker's reason.

        Raises TimedOut or UnitFailed if systemd does not stop it; then it is followed as before.
        """
        if self._stopping is None or self._stopping.done():
            self._stopping = asyncio.ensure_future(self._stop())
        # Shielded: a client that disconnects cancels its request, but not the stop.
        await asyncio.shield(self._stopping)

    async def _stop(self) -> None:
        worker, parts = self.worker, self._parts
        self._cut = WorkerFailed(f"the worker {worker.id} was stopped before its engine was started")
        await _cancel(self._preparing)
        for task in (self._running, self._starting):
            await _cancel(task)
        if worker.state == "stopped":
            return
        if self._running is None:
            await self._clean("it was stopped before its engine was started")
            return
        was_failed = worker.state == "failed"
        worker.change("stopping", "a stop was requested", pid=worker.pid)
        parts.work.changed()
        await parts.book.look(worker.id)  # the kernel's peak is gone with the cgroup
        try:
            await parts.units.stop(self.unit)
            # An engine that ignores SIGTERM is killed, which leaves its unit failed.
            if was_failed or (await parts.units.state(self.unit)).active == "failed":
                await parts.units.reset_failed(self.unit)
        except RbeeError as error:
            worker.change("stopping", f"systemd has not stopped it: {error.message}", pid=worker.pid)
            self.begin(is_new=False)
            raise
        await self._clean("")

    async def _clean(self, reason: str) -> None:
        """Remove what is left of a worker that has stopped."""
        worker, parts = self.worker, self._parts
        held = await self._release()
        parts.specifications.remove(worker.id)
        worker.change("stopped", "; ".join(filter(None, (reason, held))))
        self._narrate(WORKER_STOPPED, f"{self._name} has stopped" + (f": {reason}" if reason else ""))
        parts.units.unfollow(self.unit)
        self._gone(worker)
        parts.work.changed()

    async def _release(self) -> str:
        """Release the claim when the memory is free; return who still holds it, '' if nobody does."""
        worker, book = self.worker, self._parts.book
        holder = await book.proven_free(worker.id, [worker.pid] if worker.pid else [])
        _, peak = book.used(worker.id)
        if peak is not None:
            worker.peak_bytes = peak
        book.release(worker.id)
        if holder is None:
            return ""
        text = held_by(holder, worker.start.pool)
        self._narrate(MEMORY_HELD, f"{self._name} has ended, but {text}")
        return text

    # Narration

    @property
    def _name(self) -> str:
        return self.worker.start.model

    def _narrate(self, event: Event, text: str) -> None:
        self._parts.narrator.narrate(event, text, **self.fields())

    def _repeat_lines(self, state: UnitState) -> None:
        """Have what the engine printed during a start that has ended repeated with the job, if it has one."""
        worker, invocation = self.worker, state.invocation
        if worker.job_id is None or invocation in ("", self._repeated):
            return
        self._repeated = invocation
        ended = time.time()
        began = max(ended - (time.monotonic() - worker.began), self._repeated_until)
        self._repeated_until = ended + LATE
        fields = {**self.fields(), "invocation": invocation}
        self._parts.engine_log.repeat(Start(self.unit, invocation, began, ended, fields))

    def fields(self) -> dict[str, str]:
        """Return the journal fields of a line about the worker.

        With the unit's invocation ID `rbeectl logs` finds the engine's own lines.
        """
        fields = {"worker": self.worker.id, "model": self.worker.start.model}
        if self.worker.job_id:
            fields["job_id"] = self.worker.job_id
        if invocation := invocation_of(self.unit, scope=self._parts.scope):
            fields["invocation"] = invocation
        return fields


async def _cancel(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _note_end(changed: asyncio.Event, starting: asyncio.Task[None]) -> None:
    if not starting.cancelled():
        starting.exception()  # retrieved here, or asyncio would log it; _refused() uses it
    changed.set()


def _refused(starting: asyncio.Task[None] | None) -> Verdict | None:
    """Return the verdict if systemd has refused the start, which the unit's state does not show."""
    if starting is None or starting.cancelled() or (error := starting.exception()) is None:
        return None
    if not isinstance(error, RbeeError):
        return Verdict("failed", f"its start failed: {error!r}")
    return Verdict("failed", "; try: ".join([error.message, *(error.hint or "").splitlines()]))


def held_by(holder: Holder, pool: str) -> str:
    """Return a clause about who still holds a worker's memory: '2.0 GiB of gpu0 is still held by …'."""
    amount = "memory" if holder.bytes is None else f"{holder.bytes / GIB:.1f} GiB"
    who = " ".join(
        part
        for part in (
            holder.name or "a process",
            f"(process {holder.pid})" if holder.pid else "",
            f"of {holder.user}" if holder.user else "",
        )
        if part
    )
    return f"{amount} of {pool} is still held by {who}"
