"""Who holds memory: the table of list-devices --memory, the lines of top --memory, and show's properties."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from rbee.keeper.output.tables import WHOLE, Frame, table
from rbee.text import printable, shown_size

if TYPE_CHECKING:
    from rbee.wire.hives import HiveView
    from rbee.wire.workers import Holder, Memory, Pool

HEADER = ("HIVE", "POOL", "MEMORY", "KIND", "HOLDER", "USER", "PID")

LINES_MAX = 5
"""Holders of a pool that top shows."""


def memory_table(hives: Iterable[HiveView], memories: Mapping[str, Memory], frame: Frame = WHOLE) -> str:
    """The table of list-devices --memory: of each pool the holders, claimed, free and total memory."""
    rows = [row for hive in hives for row in _hive_rows(hive, memories.get(hive.id))]
    return table(HEADER, rows, frame, key="HOLDER")


def _hive_rows(hive: HiveView, memory: Memory | None) -> Iterator[tuple[str, ...]]:
    if memory is None:
        why = "does not answer" if hive.state == "online" else f"is {hive.state}"
        yield hive.id, "-", "unknown", "-", f"the hive {why}", "-", "-"
        return
    for pool in memory.pools:
        for amount, kind, holder, user, pid in _pool_rows(pool):
            yield hive.id, pool.id, amount, kind, holder, user, pid


def _pool_rows(pool: Pool) -> Iterator[tuple[str, str, str, str, str]]:
    for holder in pool.holders:
        pid = "-" if holder.pid is None else str(holder.pid)
        yield size(holder.bytes), holder.kind, holder.name or "-", holder.user or "-", pid
    if pool.claimed_bytes:
        yield size(pool.claimed_bytes), "claimed", "by workers, and not used yet", "-", "-"
    yield size(pool.free_bytes), "free", pool.problem or "-", "-", "-"
    shared = ", of the machine's RAM" if pool.shares_ram else ""
    yield size(pool.total_bytes), "total", f"{pool.name}{shared}", "-", "-"


def holder_lines(pool: Pool) -> list[str]:
    """Lines of top: the first LINES_MAX holders that have a name or a pid, and what is claimed."""
    named = [holder for holder in pool.holders if holder.kind == "worker" or holder.name or holder.pid]
    lines = [f"{size(holder.bytes)}  {described(holder)}" for holder in named[:LINES_MAX]]
    if len(named) > LINES_MAX:
        lines.append(f"{len(named) - LINES_MAX} more")
    if pool.claimed_bytes:
        lines.append(f"{size(pool.claimed_bytes)}  claimed")
    return lines


def described(holder: Holder) -> str:
    """Such as 'worker bee-1', or 'session-3.scope of ada, pid 812'."""
    if holder.kind == "worker":
        return f"worker {printable(holder.name or '')}"
    of = f" of {printable(holder.user)}" if holder.user else ""
    pid = f", pid {holder.pid}" if holder.pid is not None and holder.name else ""
    return f"{printable(holder.name or f'process {holder.pid}')}{of}{pid}"


def memory_properties(memory: Memory) -> dict[str, str]:
    """Properties of show: bytes free and claimed, and holders as 'NAME: BYTES; …'; '' for unknown."""
    values: dict[str, str] = {}
    for pool in memory.pools:
        prefix = "" if pool.id == "ram" else pool.id.upper()
        values |= {
            f"{prefix}MemoryFree": "" if pool.free_bytes is None else str(pool.free_bytes),
            f"{prefix}MemoryClaimed": str(pool.claimed_bytes),
            f"{prefix}MemoryHolders": "; ".join(
                f"{described(holder)}: {'' if holder.bytes is None else holder.bytes}"
                for holder in pool.holders
            ),
        }
    return values


def size(count: int | None) -> str:
    """Bytes, such as '5.1 GiB'; 'unknown' for None."""
    return "unknown" if count is None else shown_size(count)
