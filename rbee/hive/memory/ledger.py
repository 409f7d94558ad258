"""The arithmetic of the memory book: what is held and claimed of each pool. It reads nothing itself."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from rbee.errors import CardLoads, NoMemory
from rbee.text import shown_size
from rbee.wire.workers import Holder, Pool

RAM = "ram"
HOLDERS_MAX = 1000
"""The most holders of a pool that are listed one by one."""


@dataclass(frozen=True)
class Reading:
    """What was read of one pool, in bytes; None if unknown.

    `free` is what nobody holds. `held` has what each worker holds, by its id: a worker that is missing in it
    holds nothing. `others` are the other holders that are known individually, and `rest` is the name for all
    that remain.
    """

    id: str
    name: str
    total: int | None
    free: int | None
    held: Mapping[str, int | None] = field(default_factory=dict)
    others: tuple[Holder, ...] = ()
    rest: str = "other processes"
    shares_ram: bool = False
    problem: str | None = None
    has_uuid: bool = False


class Claim(NamedTuple):
    """Memory that is reserved for a worker; `loads` is whether its engine is still loading the model."""

    worker_id: str
    pool: str
    bytes: int
    loads: bool = True


class Ledger:
    """The claims of a hive's workers, one for each worker."""

    def __init__(self) -> None:
        self._claims: dict[str, Claim] = {}

    def of(self, worker_id: str) -> Claim | None:
        """Return a worker's claim, None if it has none."""
        return self._claims.get(worker_id)

    def all(self) -> tuple[Claim, ...]:
        """Return all claims."""
        return tuple(self._claims.values())

    def note(self, claim: Claim) -> None:
        """Add a claim, whatever is free, in place of the worker's former one."""
        self._claims[claim.worker_id] = claim

    def loaded(self, worker_id: str) -> None:
        """Note that a worker's load has ended, well or not."""
        claim = self._claims.get(worker_id)
        if claim is not None:
            self.note(Claim(claim.worker_id, claim.pool, claim.bytes, loads=False))

    def release(self, worker_id: str) -> Claim | None:
        """Remove a worker's claim, and return it; None if it has none."""
        return self._claims.pop(worker_id, None)

    def check(self, claim: Claim, readings: Mapping[str, Reading]) -> None:
        """Raise NoMemory, with the arithmetic, if a claim does not fit; CardLoads if its card is loading.

        What the worker already holds counts towards its claim.
        """
        reading = readings.get(claim.pool)
        if reading is None:
            known = ", ".join(readings)
            raise NoMemory(f"this machine has no {claim.pool}; it has {known}", field="pool")
        loading = next((other for other in self._others(claim) if other.loads), None)
        if loading is not None and claim.pool != RAM:
            raise CardLoads(
                f"the worker {loading.worker_id} is loading on {claim.pool}; only one may load on a card",
                hint="Try again when that worker is ready.",
                field="pool",
            )
        self._check_room(claim, readings)

    def _check_room(self, claim: Claim, readings: Mapping[str, Reading]) -> None:
        pool = self.pool(readings[claim.pool], readings, without=claim.worker_id)
        if pool.free_bytes is None:
            why = f": {pool.problem}" if pool.problem else ""
            raise NoMemory(f"the free memory of {claim.pool} is not known{why}", field="pool")
        held = readings[claim.pool].held.get(claim.worker_id) or 0
        more = max(0, claim.bytes - held)
        if more + pool.margin_bytes <= pool.free_bytes:
            return
        own = f", of which it holds {shown_size(held)}" if held else ""
        raise NoMemory(
            f"{claim.worker_id} needs {shown_size(claim.bytes)} of {claim.pool}{own}, and a margin of "
            f"{shown_size(pool.margin_bytes)} stays free; of {shown_size(pool.total_bytes or 0)} there are "
            f"{shown_size(pool.free_bytes)} free, with {shown_size(pool.claimed_bytes)} claimed for others",
            hint="Stop what is not needed on that machine, or serve the model with a smaller context.",
            field="claim_bytes",
        )

    def _others(self, claim: Claim) -> list[Claim]:
        return [
            other
            for other in self._claims.values()
            if other.worker_id != claim.worker_id and other.pool == claim.pool
        ]

    def pool(self, reading: Reading, readings: Mapping[str, Reading], *, without: str | None = None) -> Pool:
        """Return a pool as it is shown; `without` leaves out a worker's claim.

        If the free memory is known and nothing is held twice, holders, claimed and free add up to the total.
        """
        claimed = self._claimed({reading.id: reading}, without)
        free = None if reading.free is None else max(0, reading.free - claimed)
        ram = readings.get(RAM)
        if reading.id == RAM:
            sharing = {other.id: other for other in readings.values() if other.shares_ram}
            more = self._claimed(sharing, without)
            claimed, free = claimed + more, None if free is None else max(0, free - more)
        elif reading.shares_ram and ram is not None:
            there = self.pool(ram, readings, without=without).free_bytes
            known = [count for count in (free, there) if count is not None]
            free = min(known, default=None) if there is not None else None
        return Pool(
            id=reading.id,
            name=reading.name,
            total_bytes=reading.total,
            free_bytes=free,
            claimed_bytes=claimed,
            holders=_holders(reading),
            problem=reading.problem,
            shares_ram=reading.shares_ram,
            has_uuid=reading.has_uuid,
        )

    def _claimed(self, readings: Mapping[str, Reading], without: str | None) -> int:
        return sum(
            _unused(claim, readings[claim.pool])
            for claim in self._claims.values()
            if claim.pool in readings and claim.worker_id != without
        )


def _unused(claim: Claim, reading: Reading) -> int:
    """Return the bytes of a claim that its worker does not hold yet.

    If it is not known what the worker holds, that is all of a claim on RAM, as the pages of a mapped model
    still count as free. Of a card it is nothing once the load has ended: engines take a card's memory while
    they load, and the driver counts it as used.
    """
    held = reading.held.get(claim.worker_id, 0)
    if held is None:
        return claim.bytes if claim.loads or claim.pool == RAM else 0
    return max(0, claim.bytes - held)


def _holders(reading: Reading) -> tuple[Holder, ...]:
    """Return the workers, then the other holders, largest first; the last one is all that is not listed."""
    workers = [Holder("worker", held, worker_id) for worker_id, held in reading.held.items()]
    named = [*_by_size(workers), *_by_size(reading.others)][:HOLDERS_MAX]
    if reading.total is None or reading.free is None:
        return tuple(named)
    rest = reading.total - reading.free - sum(holder.bytes or 0 for holder in named)
    return (*named, Holder("process", rest, reading.rest)) if rest > 0 else tuple(named)


def _by_size(holders: Iterable[Holder]) -> list[Holder]:
    return sorted(holders, key=lambda holder: (-(holder.bytes or 0), holder.name or "", holder.pid or 0))
