"""Where a model runs: a decision about a snapshot of the fleet, by arithmetic alone.

The order of preference: a worker that is ready; a pool in which it fits, a card before RAM and the tightest
first; a pool in which it fits once workers that are idle and not pinned are stopped, the least recently used
first; a wait, if that can help; a refusal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from rbee.errors import TEXT_LIMIT
from rbee.queen.serving.need import Need, kind_of, size
from rbee.text import shortened
from rbee.wire.engines import Engine
from rbee.wire.types import Format
from rbee.wire.workers import Candidate, Kind, Placement, Pool, WorkerState

CANDIDATES_MAX = 10_000
"""Candidates in a Placement, the chosen one first."""

Decided = Literal["ready", "start", "evict", "wait", "refuse"]


class HiveNow(NamedTuple):
    """A hive. `problem` is why nothing can be started on it now; `may_recover` if that may be over soon."""

    id: str
    pools: tuple[Pool, ...] = ()
    engines: tuple[Engine, ...] = ()
    problem: str | None = None
    may_recover: bool = False


class WorkerNow(NamedTuple):
    """A worker; `bytes` of its pool are free once it has ended, `last_used` orders by the last request."""

    id: str
    model: str
    hive_id: str
    pool: str
    state: WorkerState
    bytes: int
    in_flight: int = 0
    is_pinned: bool = False
    last_used: float = 0

    @property
    def gives_way(self) -> bool:
        """May it be stopped for another model's worker?"""
        return self.state == "ready" and not self.in_flight and not self.is_pinned

    @property
    def will_end(self) -> bool:
        """Will it end by itself and free its memory?"""
        return self.state != "failed" and (not self.is_pinned or self.state == "stopping")


class Snapshot(NamedTuple):
    """The fleet at one moment."""

    hives: tuple[HiveNow, ...] = ()
    workers: tuple[WorkerNow, ...] = ()


class Wanted(NamedTuple):
    """The model that is to run. `files` are the hives that have its file; `engine` None is any that can.

    `needs` are what it needs by an engine of which nothing is known: `by_engine` has those that are.
    """

    model: str
    format: Format
    files: frozenset[str]
    needs: Mapping[Kind, Need]
    context: int
    engine: str | None = None
    by_engine: Mapping[tuple[Kind, str], Need] = MappingProxyType({})

    def need(self, kind: Kind, engine: str | None = None) -> Need:
        """Return what it needs in a kind of pool, with None by whatever engine: the most of those known."""
        if engine is not None:
            return self.by_engine.get((kind, engine), self.needs[kind])
        known = [need for (pools, _), need in self.by_engine.items() if pools == kind]
        return max(known, key=lambda need: need.bytes, default=self.needs[kind])


class Target(NamedTuple):
    """Where a worker is started, after `evicts` have been stopped."""

    hive_id: str
    pool: str
    engine: str
    need: Need
    evicts: tuple[str, ...]


class Decision(NamedTuple):
    """A placement, and its target if a worker is to be started.

    `is_blocked`: it was refused, and not for lack of memory: no hive with the file can start a worker at all.
    """

    placement: Placement
    target: Target | None
    is_blocked: bool = False


class _Option(NamedTuple):
    """A pool of a hive, and what it would take. `obstacle` is why it is not considered.

    `engine` is the one that would serve the model there, '' if no engine of the hive can be used at all.
    """

    hive: str
    pool: Pool
    need: Need
    engine: str = ""
    obstacle: str | None = None
    may_recover: bool = False
    fits: bool = False
    evicts: tuple[WorkerNow, ...] = ()
    loads: str | None = None
    """The worker that is being loaded there."""
    busy: tuple[str, ...] = ()
    """The workers for whose end it is worth waiting."""
    pinned: tuple[str, ...] = ()
    """The workers that hold memory there and never give way."""


def decide(wanted: Wanted, snapshot: Snapshot) -> Decision:
    """Return where a worker of the model is, or is to be started, or why not."""
    options = [option for hive in snapshot.hives for option in _options(wanted, hive, snapshot.workers)]
    own = sorted(
        (worker for worker in snapshot.workers if worker.model == wanted.model),
        key=lambda one: (one.state != "ready", one.in_flight, one.id),
    )
    for worker in own:
        if worker.state in ("ready", "loading"):
            chosen = next((one for one in options if _is_at(one, worker)), None)
            place = f"{worker.id} is {worker.state} on {worker.hive_id} {worker.pool}"
            return _decided(wanted, options, "ready" if worker.state == "ready" else "wait", place, chosen)
    open_now = [option for option in options if option.obstacle is None and option.loads is None]
    fitting = min((one for one in open_now if one.fits), key=_tightness, default=None)
    if fitting is not None:
        free = size(fitting.pool.free_bytes or 0)
        return _decided(wanted, options, "start", f"{_place(fitting)} has {free} free", fitting)
    evicting = min((one for one in open_now if one.evicts), key=_staleness, default=None)
    if evicting is not None:
        names = " and ".join(worker.id for worker in evicting.evicts)
        free = size(evicting.pool.free_bytes or 0)
        reason = f"{_place(evicting)} has {free} free, and stopping {names} (idle) makes room"
        return _decided(wanted, options, "evict", reason, evicting)
    hope = next(filter(None, map(_hope, options)), None)
    if hope is not None:
        return _decided(wanted, options, "wait", hope, None)
    refused = _decided(wanted, options, "refuse", _refusal(wanted, options), None)
    return refused._replace(is_blocked=not any(option.engine for option in options))


def _decided(
    wanted: Wanted, options: list[_Option], decision: Decided, reason: str, chosen: _Option | None
) -> Decision:
    need = chosen.need if chosen is not None else _least(wanted, options)
    candidates = sorted(
        (_candidate(option, is_chosen=option is chosen) for option in options),
        key=lambda one: not one.is_chosen,
    )
    placement = Placement(
        wanted.model, need.bytes, need.source, wanted.context, decision,
        shortened(reason, TEXT_LIMIT), tuple(candidates[:CANDIDATES_MAX]), need.engine,
    )  # fmt: skip
    if chosen is None or decision not in ("start", "evict"):
        return Decision(placement, None)
    evicts = tuple(worker.id for worker in chosen.evicts) if decision == "evict" else ()
    return Decision(placement, Target(chosen.hive, chosen.pool.id, chosen.engine, need, evicts))


def _least(wanted: Wanted, options: list[_Option]) -> Need:
    """Return the need that is shown if no pool was chosen: the least of those that were looked at."""
    needs = [option.need for option in options if option.hive in wanted.files]
    needs = needs or [wanted.need(kind) for kind in wanted.needs]
    return min(needs, key=lambda need: need.bytes)


# Looking at a pool


def _options(wanted: Wanted, hive: HiveNow, workers: tuple[WorkerNow, ...]) -> Iterable[_Option]:
    obstacle, engines = _obstacle(wanted, hive)
    pools = hive.pools or (Pool("ram", "RAM", None, None),)
    for pool in pools:
        if obstacle is not None:
            may, need = hive.may_recover and hive.id in wanted.files, wanted.need(kind_of(pool.id))
            yield _Option(hive.id, pool, need, obstacle=obstacle, may_recover=may, fits=_fits(pool, need))
            continue
        suited = next((one for one in engines if _unsuited(one, pool) is None), None)
        need = wanted.need(kind_of(pool.id), (suited or engines[0]).name)
        if suited is None:
            why = "; ".join(filter(None, (_unsuited(one, pool) for one in engines)))
            yield _Option(hive.id, pool, need, engines[0].name, why, fits=_fits(pool, need))
            continue
        here = [worker for worker in workers if (worker.hive_id, worker.pool) == (hive.id, pool.id)]
        yield _look(_Option(hive.id, pool, need, suited.name), here)


def _obstacle(wanted: Wanted, hive: HiveNow) -> tuple[str | None, list[Engine]]:
    """Return why a hive is not considered, or None and the engines that can be used, the first preferred."""
    if hive.id not in wanted.files:
        return "the model's file is not on this hive", []
    if hive.problem is not None:
        return hive.problem, []
    takes = [one for one in hive.engines if wanted.engine in (None, one.name)]
    if not takes and wanted.engine is not None:
        return f"it has no engine {wanted.engine}", []
    takes = [one for one in takes if wanted.format in one.formats]
    if not takes:
        which = wanted.engine or "none of its engines"
        return f"{which} {'does not load' if wanted.engine else 'loads'} {wanted.format}", []
    usable = [one for one in takes if one.problem is None]
    if not usable:
        return "; ".join(f"{one.name}: {one.problem}" for one in takes), []
    return None, usable


def _unsuited(engine: Engine, pool: Pool) -> str | None:
    """Return why an engine cannot use a pool, None if it can."""
    if pool.id == "ram" or pool.has_uuid or not engine.selects_by_uuid:
        return None
    return f"{engine.name} selects a card by its UUID, and that of this card is not known"


def _look(option: _Option, workers: list[WorkerNow]) -> _Option:
    """Return the option with the arithmetic of its pool and the `workers` in it."""
    pool, need = option.pool, option.need
    if pool.free_bytes is None:
        return _changed(option, obstacle=pool.problem or "its driver does not report how much is free")
    # One load a card at a time: two at once on a card fail where one after the other works.
    loads = None
    if pool.id != "ram":
        loads = next((one.id for one in workers if one.state == "loading"), None)
    if _fits(pool, need):
        return _changed(option, fits=True, loads=loads)
    missing = need.bytes + pool.margin_bytes - pool.free_bytes
    idle = sorted((one for one in workers if one.gives_way), key=lambda one: (one.last_used, one.id))
    evicts = tuple(_enough(idle, missing))
    ending = [one for one in workers if one.will_end]
    busy = tuple(one.id for one in ending) if sum(one.bytes for one in ending) >= missing else ()
    pinned = tuple(one.id for one in workers if one.is_pinned)
    return _changed(option, evicts=evicts, loads=loads, busy=busy, pinned=pinned)


def _changed(
    option: _Option,
    *,
    obstacle: str | None = None,
    fits: bool = False,
    evicts: tuple[WorkerNow, ...] = (),
    loads: str | None = None,
    busy: tuple[str, ...] = (),
    pinned: tuple[str, ...] = (),
) -> _Option:
    return _Option(
        option.hive,
        option.pool,
        option.need,
        option.engine,
        obstacle,
        False,
        fits,
        evicts,
        loads,
        busy,
        pinned,
    )


def _fits(pool: Pool, need: Need) -> bool:
    return pool.free_bytes is not None and pool.free_bytes - pool.margin_bytes >= need.bytes


def _enough(idle: list[WorkerNow], missing: int) -> list[WorkerNow]:
    """Return those of `idle`, from the first, that together free the missing bytes, and no others; or []."""
    taken: list[WorkerNow] = []
    for worker in idle:
        if missing <= 0:
            break
        taken.append(worker)
        missing -= worker.bytes
    if missing > 0:
        return []
    for worker in reversed(taken):  # the one that was used last is spared first
        if missing + worker.bytes <= 0:
            taken.remove(worker)
            missing += worker.bytes
    return taken


# The order of preference


def _tightness(option: _Option) -> tuple[bool, int, str, str]:
    left = (option.pool.free_bytes or 0) - option.need.bytes
    return option.pool.id == "ram", left, option.hive, option.pool.id


def _staleness(option: _Option) -> tuple[bool, float, int, str, str]:
    last_used = max(worker.last_used for worker in option.evicts)
    return option.pool.id == "ram", last_used, len(option.evicts), option.hive, option.pool.id


def _is_at(option: _Option, worker: WorkerNow) -> bool:
    return (option.hive, option.pool.id) == (worker.hive_id, worker.pool)


# Texts


def _place(option: _Option) -> str:
    return f"{option.hive} {option.pool.id}"


def _hope(option: _Option) -> str | None:
    """Return what there is to wait for at this pool, None if waiting does not help."""
    if option.obstacle is not None:
        return f"{option.hive}: {option.obstacle}" if option.may_recover else None
    if option.loads is not None and (option.fits or option.evicts or option.busy):
        return f"{_place(option)} is loading {option.loads}, and loads one model at a time"
    if option.busy:
        return f"{_arithmetic(option)}, and {' and '.join(option.busy)} must end first"
    return None


def _refusal(wanted: Wanted, options: list[_Option]) -> str:
    """Return why: of the hives that have the model's file, if there are any."""
    if not options:
        return "there is no hive in the catalog"
    with_file = [option for option in options if option.hive in wanted.files]
    return "; ".join(list(dict.fromkeys(map(_why_not, with_file or options)))[:8])


def _why_not(option: _Option) -> str:
    if option.obstacle is None:
        return _arithmetic(option)
    return f"{_place(option) if option.engine else option.hive}: {option.obstacle}"


def _arithmetic(option: _Option) -> str:
    pool, need = option.pool, option.need
    total = "" if pool.total_bytes is None else f" of {size(pool.total_bytes)}"
    needs = f"{size(need.bytes)} and a margin of {size(pool.margin_bytes)} are needed"
    return f"{_place(option)} has {size(pool.free_bytes or 0)}{total} free, {needs}{_pinned(option)}"


def _pinned(option: _Option) -> str:
    names = " and ".join(option.pinned)
    return f", and {names} {'is' if len(option.pinned) == 1 else 'are'} pinned" if names else ""


def _candidate(option: _Option, *, is_chosen: bool) -> Candidate:
    pool = option.pool
    return Candidate(
        option.hive, pool.id, pool.name, pool.total_bytes, pool.free_bytes, pool.margin_bytes,
        option.need.bytes, option.fits, shortened(_verdict(option), TEXT_LIMIT), is_chosen,
        tuple(worker.id for worker in option.evicts),
    )  # fmt: skip


def _verdict(option: _Option) -> str:
    if option.obstacle is not None:
        return option.obstacle
    if option.loads is not None:
        return f"it is loading {option.loads}, and loads one model at a time"
    if option.fits:
        return "it fits"
    if option.evicts:
        return f"stopping {' and '.join(worker.id for worker in option.evicts)} (idle) makes room"
    missing = option.need.bytes + option.pool.margin_bytes - (option.pool.free_bytes or 0)
    if option.busy:
        return f"{size(missing)} are missing until {' and '.join(option.busy)} end"
    return f"{size(missing)} are missing{_pinned(option)}"
