"""The memory of cards: which processes hold it, and which workers, units and users these belong to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rbee.hive.devices.held import HeldCard
from rbee.hive.devices.nvml.results import NvmlProcess
from rbee.hive.memory.cgroups import Unit
from rbee.hive.memory.ledger import Reading
from rbee.wire.workers import Holder

UNLISTED = "processes that the driver does not list"


def card_pool(index: int) -> str:
    """Return the id of a card's pool."""
    return f"gpu{index}"


def read_card(card: HeldCard, owners: Mapping[int, Unit], claimants: Iterable[str]) -> Reading:
    """Return the reading of a card. `owners` has units by PID; `claimants` are workers with claims on it."""
    free = None if card.total is None or card.used is None else max(0, card.total - card.used)
    held: dict[str, int | None] = dict.fromkeys(claimants)
    others: tuple[Holder, ...] = ()
    if card.processes is not None:
        held, others = _by_owner(card.processes, owners)
    return Reading(
        card_pool(card.index),
        card.name,
        card.total,
        free,
        held,
        others,
        UNLISTED,
        shares_ram=card.is_shared,
        problem=card.problem or (None if free is not None or card.is_shared else _unknown(card)),
        has_uuid=card.has_uuid,
    )


def _unknown(card: HeldCard) -> str:
    return f"the driver of {card.name} does not report how much of its memory is in use"


def _by_owner(
    processes: Iterable[NvmlProcess], owners: Mapping[int, Unit]
) -> tuple[dict[str, int | None], tuple[Holder, ...]]:
    """Return the bytes of each worker, None if those of a process are unknown, and the other holders."""
    held: dict[str, int | None] = {}
    others = []
    for process in processes:
        unit = owners.get(process.pid)
        worker_id = unit.worker_id if unit else None
        if worker_id is not None:
            before = held.get(worker_id, 0)
            known = before is not None and process.memory_bytes is not None
            held[worker_id] = (before or 0) + (process.memory_bytes or 0) if known else None
        else:
            name, user = (unit.name, unit.user) if unit else (None, None)
            others.append(Holder("process", process.memory_bytes, name, user, process.pid))
    return held, tuple(others)
