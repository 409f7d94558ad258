"""Workers, and the memory that they need: what hives report, and what the queen shows."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from rbee.wire.models import Context, Path
from rbee.wire.types import Count, Format, Limit, ModelName, Name, Percent, Text, Word, WorkerId

WorkerState = Literal[
    "asleep", "waiting", "loading", "ready", "busy", "stopping", "stopped", "failed", "unknown"
]
"""The state is 'unknown' while the hive is not online."""
WORKERS_MAX = 256
"""The most workers of a hive."""

PoolId = Annotated[str, Limit(1, 64, r"ram|gpu[0-9]{1,3}", "'ram', or 'gpu' and the card's number")]
"""Where memory is: a machine's RAM, or one card by its index in the hive's devices."""


# Memory

MARGIN = 2**30
"""Bytes of a pool that no claim may take. Of a pool smaller than 20 GiB a twentieth is kept instead."""


class Holder(NamedTuple):
    """Who holds memory: a worker, or another process. What the kernel and the driver do not report is None.

    `name` is the worker's id, or the unit of the process. The last holder of a pool may stand for everything
    that is not listed by process or unit: it has no pid, and its name says so.
    """

    kind: Literal["worker", "process"]
    bytes: Count | None
    name: Text | None = None
    user: Text | None = None
    pid: Count | None = None


class Pool(NamedTuple):
    """The memory of a card, or RAM. `claimed_bytes` are reserved for workers that do not use them yet.

    `free_bytes` is what nobody holds, less what is claimed; if it is None, `problem` says why. A card that
    `shares_ram` has no memory of its own: at most the free RAM is free there, and its claims count as claims
    on the RAM, too. `has_uuid` is whether the card's UUID is known, by which some engines select it.
    """

    id: PoolId
    name: Text
    total_bytes: Count | None
    free_bytes: Count | None
    claimed_bytes: Count = 0
    holders: Annotated[tuple[Holder, ...], Limit(0, 1024)] = ()
    problem: Text | None = None
    shares_ram: bool = False
    has_uuid: bool = False

    @property
    def margin_bytes(self) -> int:
        """The bytes that no claim may take: MARGIN, or a twentieth of a small pool."""
        return MARGIN if self.total_bytes is None else min(MARGIN, self.total_bytes // 20)


class Memory(NamedTuple):
    """The memory book of a hive: RAM first, then the cards by their index."""

    pools: Annotated[tuple[Pool, ...], Limit(0, 257)]


# What an engine itself says that a model needs

Kind = Literal["ram", "gpu"]
"""A kind of pool."""


class AskEstimate(NamedTuple):
    """A model of which a hive is to say what it needs in each of the `kinds` of pools that the machine has.

    The engine is `engine`, or the first one that can serve the model. `bytes` is the size of what is at
    `path`, 0 if it is not known.
    """

    model: ModelName
    path: Path
    format: Format
    context: Context
    kinds: Annotated[tuple[Kind, ...], Limit(1, 2)]
    engine: Word | None = None
    bytes: Count = 0


class Estimate(NamedTuple):
    """What an engine says that a model needs. `engine` is None if it has no command to ask (Estimate=).

    `problem` is why there is no answer for a kind of pool that the machine has. With `is_passing` the command
    was not run, so that what it has answered before is still what it says.
    """

    engine: Word | None = None
    ram_bytes: Count | None = None
    gpu_bytes: Count | None = None
    problem: Text | None = None
    is_passing: bool = False


# Workers of a hive


class StartWorker(NamedTuple):
    """A worker to start on a hive: an engine with a model on one card, or on the processors (`ram`).

    `claim_bytes` are reserved in the pool before it starts. `path` is the model's file or folder, and `bytes`
    its size, 0 if it is not known. `slots` is how many requests it answers at once.
    """

    id: WorkerId
    model: ModelName
    engine: Word
    path: Path
    format: Format
    context: Context
    pool: PoolId
    claim_bytes: Count
    bytes: Count = 0
    slots: Annotated[int, Limit(1, 64)] = 1


class HiveWorker(NamedTuple):
    """A worker as its hive knows it. `serial` grows with each change, across restarts of the hive too.

    `percent` is how far it has loaded. `used_bytes` is what it uses in its pool now, and `peak_bytes` the
    most so far. `log` has the last lines of an engine that failed; `is_file_missing` is whether it failed
    because the model's file was gone, `is_file_found` whether it was there; neither may be known.
    `fills_claim` is whether its engine takes what was claimed, whatever the model needs (%f): then the peak
    says nothing about the model.
    """

    id: WorkerId
    model: ModelName
    engine: Word
    pool: PoolId
    context: Count
    claim_bytes: Count
    state: WorkerState
    reason: Text
    since_ms: Count
    serial: Count
    percent: Percent | None = None
    used_bytes: Count | None = None
    peak_bytes: Count | None = None
    pid: Count | None = None
    slots: Count = 1
    log: Annotated[tuple[Text, ...], Limit(0, 20)] = ()
    is_file_missing: bool = False
    is_file_found: bool = False
    fills_claim: bool = False


class HiveWorkers(NamedTuple):
    """The workers of a hive, by id."""

    workers: Annotated[tuple[HiveWorker, ...], Limit(0, WORKERS_MAX)]


# What the queen shows


class WorkerView(NamedTuple):
    """A worker, or a served model without a worker ('asleep', or 'waiting' for memory): then `id` is None.

    `in_flight` is the number of requests that it is answering.
    """

    id: WorkerId | None
    model: ModelName
    hive_id: Name | None
    state: WorkerState
    reason: Text
    since_ms: Count
    percent: Percent | None = None
    in_flight: Count = 0
    engine: Word | None = None
    pool: PoolId | None = None
    context: Count | None = None
    claim_bytes: Count | None = None
    used_bytes: Count | None = None
    peak_bytes: Count | None = None
    pid: Count | None = None
    is_pinned: bool = False
    last_used_ms: Count | None = None
    log: Annotated[tuple[Text, ...], Limit(0, 20)] = ()


class Workers(NamedTuple):
    """Workers and sleeping models, by model and id."""

    workers: Annotated[tuple[WorkerView, ...], Limit(0, 10_000)]


class Candidate(NamedTuple):
    """One pool that was considered for a model, with the arithmetic.

    `fits` is whether the free memory, less the margin, is at least `need_bytes`. `evicts` are the workers
    that would be stopped to make room. `verdict` says what was decided, and why.
    """

    hive_id: Name
    pool: PoolId
    name: Text
    total_bytes: Count | None
    free_bytes: Count | None
    margin_bytes: Count
    need_bytes: Count
    fits: bool
    verdict: Text
    is_chosen: bool = False
    evicts: Annotated[tuple[WorkerId, ...], Limit(0, WORKERS_MAX)] = ()


Source = Literal["operator", "learned", "engine", "estimate", "guess"]
"""Where it is known from what a model needs, from the best to the worst."""


class Placement(NamedTuple):
    """Where a model would run now, and why.

    `source` is where `need_bytes` comes from: the operator, a learned peak, the engine `engine` itself, an
    estimate from the file's header, or a guess from its size. `note` is why the engine, which has a command
    for it, did not say what the model needs. `hint` is what helps against a refusal for which memory is not
    the reason.
    """

    model: ModelName
    need_bytes: Count
    source: Source
    context: Count
    decision: Literal["ready", "start", "evict", "wait", "refuse"]
    reason: Text
    candidates: Annotated[tuple[Candidate, ...], Limit(0, 10_000)] = ()
    engine: Word | None = None
    note: Text | None = None
    hint: Text | None = None
