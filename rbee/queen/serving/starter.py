"""Starts workers: one start a model, however many requests wait for it."""

from __future__ import annotations

import asyncio
import logging
from itertools import takewhile
from typing import TYPE_CHECKING

from rbee.errors import (
    TEXT_LIMIT,
    Disconnected,
    NoMemory,
    NoRoom,
    NotRunning,
    RbeeError,
    Stopping,
    Unreachable,
    WorkerFailed,
)
from rbee.narration import (
    WORKER_GIVES_WAY,
    WORKER_PLACED,
    WORKER_UNPLACED,
    WORKER_WAITS,
)
from rbee.queen.serving.estimates import KINDS, Estimates
from rbee.queen.serving.failures import Failures
from rbee.queen.serving.follow import Follower
from rbee.queen.serving.need import Need, context_of, need_of
from rbee.queen.serving.parts import Parts
from rbee.queen.serving.placement import Decision, Target, Wanted, decide
from rbee.queen.serving.refusals import away, cure, needs, not_there, refusal
from rbee.queen.serving.snapshot import Snapshots
from rbee.queen.serving.start import Start
from rbee.queen.serving.stopping import Stopper
from rbee.queen.serving.turns import Turns
from rbee.queen.serving.workers import KnownWorkers, Worker
from rbee.text import shortened
from rbee.wire.jobs import Done
from rbee.wire.workers import Kind, StartWorker

if TYPE_CHECKING:
    from rbee.queen.store.models import ModelRow

log = logging.getLogger("rbee")

START_TIMEOUT = 15.0
"""Seconds for a hive to begin a worker's start."""

RECHECK = 5.0
"""Seconds after which memory is looked at again while a model waits: other programs may have freed some."""

TRIES = 3
"""Attempts on a hive that refuses a claim for which it had room a moment before, or that is restarting."""


PASSING = (Disconnected, NoMemory, NotRunning, Stopping)
"""Refusals after which the same attempt may succeed a moment later."""


class Starter:
    """The starts that are under way."""

    def __init__(
        self,
        parts: Parts,
        known: KnownWorkers,
        snapshots: Snapshots,
        stopper: Stopper,
        follower: Follower,
        failures: Failures,
    ) -> None:
        self._parts = parts
        self._hives = parts.hives
        self._models = parts.models
        self._metrics = parts.metrics
        self._scope = parts.scope
        self._known = known
        self._snapshots = snapshots
        self._stopper = stopper
        self._follower = follower
        self._failures = failures
        self.estimates = Estimates(parts.hives, parts.models)
        self._starts: dict[str, Start] = {}
        self._turns = Turns()

    def find(self, model: str) -> Start | None:
        """Return the start of a model that is under way, or None."""
        return self._starts.get(model)

    def join(self, model: str) -> Start:
        """Return the start of a model; it begins now if there is none.

        Raises WorkerFailed while none is begun because of failures, TooMany or Stopping.
        """
        start = self._starts.get(model)
        if start is not None:
            return start
        error = self._follower.error(model)
        if error is not None:
            raise error
        job = self._parts.jobs.open("start-worker", None)
        story = self._parts.narrator.about(job_id=job.id, model=model)
        loop = asyncio.get_running_loop()
        start = self._starts[model] = Start(
            model, job, story, loop.time(), self._parts.clocks.wall_ms(), f"waking {model}"
        )
        start.task = loop.create_task(self._run(start))
        return start

    async def withdraw(self, model: str, error: RbeeError) -> None:
        """End a start with an error; a worker that it has started is left to the caller."""
        start = self._starts.get(model)
        if start is None or start.task is None:
            return
        start.withdrawn = error
        start.task.cancel()
        await asyncio.wait({start.task})

    async def end(self) -> None:
        """Cancel all starts: the hives go on with theirs, and the next queen takes them over."""
        running = [start.task for start in self._starts.values() if start.task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def decide(self, row: ModelRow) -> Decision:
        """Return where a worker of the model would run now; all hives are asked."""
        await self.estimates.ask(row.name)
        decision = decide(self._wanted(row), await self._snapshots.take())
        placement, hive = decision.placement, self._hives.find(row.hive_id)
        absent = not_there(row, self._scope)
        if placement.decision == "ready":
            pass
        elif absent is not None:
            passed = tuple(one._replace(is_chosen=False) for one in placement.candidates)
            placement = placement._replace(
                decision="refuse", reason=absent.message, candidates=passed, hint=absent.hint
            )
            decision = Decision(placement, None)
        elif hive is None and self._hives.can_wake(row.hive_id):
            reason = f"{away(row)} yet; the next request adds it"
            placement = placement._replace(decision="wait", reason=reason)
        else:
            reason = placement.reason if hive is not None else away(row)
            if row.state == "missing":
                reason = shortened(f"{reason}; {row.reason}", TEXT_LIMIT)
            hint = cure(decision, row, hive, self._scope)
            placement = placement._replace(reason=reason, hint=hint)
        if placement.source in ("estimate", "guess"):
            placement = placement._replace(note=self.estimates.note(row.name))
        return decision._replace(placement=placement)

    def _wanted(self, row: ModelRow) -> Wanted:
        context, model = context_of(row), self._models.find(row.name)
        needs: dict[Kind, Need] = {kind: need_of(row, None, kind) for kind in KINDS}
        by_engine: dict[tuple[Kind, str], Need] = {}
        for kind in KINDS:
            said = None if model is None else model.said(context, kind)
            if said is not None:
                by_engine[kind, said.engine] = need_of(row, None, kind, said)
            for engine, peak in self._models.peaks(row.name, context, kind).items():
                if row.engine in (None, engine):
                    by_engine[kind, engine] = need_of(row, peak, kind)
        form = row.head.format if row.head is not None else "gguf"
        return Wanted(row.name, form, frozenset({row.hive_id}), needs, context, row.engine, by_engine)

    async def _run(self, start: Start) -> None:
        """Do a start, and end it and its job with its result."""
        try:
            await self._bring_up(start)
        except asyncio.CancelledError:
            if start.withdrawn is None:
                raise
            self._failed(start, start.withdrawn)
        except RbeeError as error:
            self._failed(start, error)
        except Exception as error:
            log.exception("starting %s failed", start.model)
            self._failed(start, RbeeError(f"starting {start.model} failed: internal error: {error!r}"))
        else:
            self._failures.forget(start.model)
            self._metrics.worker_started("ready")
            start.job.done(Done(None))
        finally:
            start.is_over = True
            self._starts.pop(start.model, None)
            start.progress.announce()
            self._known.changes.announce()

    def _failed(self, start: Start, error: RbeeError) -> None:
        start.error = error
        # The engine's last lines are in the journal already.
        why = (error.summary if isinstance(error, WorkerFailed) else None) or error.message
        self._metrics.worker_started("no-room" if isinstance(error, NoRoom) else "failed")
        start.story.narrate(WORKER_UNPLACED, f"waking {start.model} failed: {why}")
        start.job.failed(error)

    async def _bring_up(self, start: Start) -> None:
        """Return once a worker of the model is ready. Raises RbeeError."""
        refused = 0
        while True:
            row = self._row(start.model)
            await self._wake_hive(start, row)
            await self.estimates.ask(row.name)  # not in its turn: other models need not wait for a command
            try:
                files = self._wanted(row).files
                async with self._turns.on(files):
                    row = self._row(start.model)  # it may have been changed meanwhile
                    if self._wanted(row).files != files:
                        continue
                    decision = await self._decide_in_turn(start, row)
                    worker = await self._act(start, row, decision)
            except PASSING as error:
                refused += 1  # something else has taken the memory, or the hive is restarted just now
                if refused >= TRIES:
                    if isinstance(error, NoMemory) and decision.target is not None:
                        self._follower.refused(self._known.new_id(row.name), row, decision.target, error)
                    text = f"hive {row.hive_id} did not start {row.name} in {TRIES} attempts: {error.message}"
                    raise NoRoom(text, hint=error.hint) from error
                await self._known.changes.wait(RECHECK)
                continue
            if worker is None:
                await self._wait(start, decision)
                continue
            worker.awaited = start
            await self._follower.follow(start, worker)
            return

    async def _decide_in_turn(self, start: Start, row: ModelRow) -> Decision:
        """As decide(), but wait if the model of an earlier start that waits for memory fits now, too.

        Only the hives on which it has its turn are asked: on others that model takes nothing away from it.
        """
        before = list(takewhile(lambda one: one is not start, self._starts.values()))
        waiting = [
            self._wanted(model.row)
            for one in before
            if one.waits_for_memory and (model := self._models.find(one.model)) is not None
        ]
        wanted = self._wanted(row)
        snapshot = await self._snapshots.take(wanted.files)
        decision = decide(wanted, snapshot)
        first = next((one for one in waiting if decide(one, snapshot).target is not None), None)
        if decision.target is None or first is None:
            return decision
        reason = f"{first.model} has waited for longer"
        return Decision(decision.placement._replace(decision="wait", reason=reason), None)

    async def _wake_hive(self, start: Start, row: ModelRow) -> None:
        """Add the hive, or start it, if it can be woken. Raises what adding it raises.

        One that starts, or connects, is waited for as for memory.
        """
        hive_id = row.hive_id
        if self._hives.can_wake(hive_id):
            start.show(f"waking the hive for {row.name}")
            by = {"job_id": start.job.id}
            await self._parts.hive_work.ensure(hive_id, start.job, start.story.about(hive=hive_id), by)

    def _row(self, name: str) -> ModelRow:
        row = self._models.model(name).row
        error = not_there(row, self._scope)
        if error is not None:
            raise error
        return row

    async def _act(self, start: Start, row: ModelRow, decision: Decision) -> Worker | None:
        """Do what was decided; return the worker that is to be followed, None to wait."""
        placement, target = decision.placement, decision.target
        own = [one for one in self._known.of_model(row.name) if one.is_ready or one.state == "loading"]
        own = [one for one in own if self._is_online(one)]
        if own:
            return min(own, key=lambda one: not one.is_ready)
        if placement.decision == "refuse":
            raise refusal(row, decision, self._hives.find(row.hive_id), self._scope)
        if target is None:
            return None
        start.waits_for_memory = False
        if target.evicts:
            text = f"{needs(decision)}; {placement.reason}"
            await self._evict(start, target, text)
        else:
            text = f"{needs(decision)}; {placement.reason}: waking it there"
        start.show(text)
        worker_id = self._known.new_id(row.name)
        story = start.story.about(hive=target.hive_id, worker=worker_id)
        story.narrate(WORKER_PLACED, text)
        return await self._start(start, row, target, worker_id)

    async def _evict(self, start: Start, target: Target, text: str) -> None:
        """Stop the workers that give way. They have no leases: nothing was awaited since the decision."""
        victims = [self._known.find(one, target.hive_id) for one in target.evicts]
        stops = []
        for victim in victims:
            if victim is not None:
                self._metrics.worker_evicted()
                gives_way = f"{text}: stopping {victim.id}"
                stops.append(self._stopper.begin(victim, start.story, WORKER_GIVES_WAY, gives_way))
        start.show(text)
        await asyncio.gather(*stops)

    async def _start(self, start: Start, row: ModelRow, target: Target, worker_id: str) -> Worker:
        assert row.path is not None
        asked = StartWorker(
            id=worker_id,
            model=row.name,
            engine=target.engine,
            path=row.path,
            format=self._wanted(row).format,
            context=context_of(row),
            pool=target.pool,
            claim_bytes=target.need.bytes,
            bytes=row.bytes or 0,
        )
        client = await self._hives.hive(target.hive_id).reach()
        try:
            seen = await client.start_worker(asked, job_id=start.job.id, timeout=START_TIMEOUT)
        except (*PASSING, Unreachable):
            raise
        except RbeeError as error:
            raise self._follower.refused(worker_id, row, target, error) from error
        return self._known.take(target.hive_id, seen, is_ours=True)

    async def _wait(self, start: Start, decision: Decision) -> None:
        """Wait for a change that may make room; NoRoom once no request waits any more."""
        placement = decision.placement
        text = f"{needs(decision)}; waiting: {placement.reason}"
        if not start.waits_for_memory or text != start.text:
            start.waits_for_memory = True
            start.story.narrate(WORKER_WAITS, text)
        start.show(text)
        if not start.waiting:
            raise NoRoom(
                f"{needs(decision)}, and no request waits for it any more: {placement.reason}",
                hint=self._scope.rbeectl(f"place {start.model} --dry-run"),
            )
        await self._known.changes.wait(RECHECK)

    def _is_online(self, worker: Worker) -> bool:
        hive = self._hives.find(worker.hive_id)
        return hive is not None and hive.standing.is_online
