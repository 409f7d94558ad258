"""The memory book: what is used of RAM and cards and by whom, and what is reserved for workers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rbee.hive.devices.held import HeldCard, unread
from rbee.hive.memory.cards import card_pool, read_card
from rbee.hive.memory.cgroups import Cgroups, Unit, is_populated, pids, usage
from rbee.hive.memory.ledger import RAM, Claim, Ledger, Reading
from rbee.hive.memory.ram import read_ram
from rbee.hive.threads import in_daemonic_thread
from rbee.wire.workers import Holder, Memory

if TYPE_CHECKING:
    from rbee.hive.devices import Detector

log = logging.getLogger("rbee")

CARDS_TIMEOUT = 3.0
"""Seconds to wait for the drivers of the cards; NVML's READ_TIMEOUT is less."""

PROOF_TIMEOUT = 5.0
"""Seconds after a stop within which a worker's memory must be free again."""

PROOF_INTERVAL = 0.1
"""Seconds between two checks after a stop: NVML reports no event when memory is free again."""


class Book:
    """Reads on request only. Drivers may hang: they are asked in a thread, one call at a time.

    claim() comes before a worker's start, loaded() at the end of its load, release() after its stop. The last
    reading of the cards is kept for used().
    """

    def __init__(
        self,
        detector: Detector,
        root: Path = Path("/"),
        *,
        cards_timeout: float = CARDS_TIMEOUT,
        proof_timeout: float = PROOF_TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._detector = detector
        self._root = root
        self._cards_timeout = cards_timeout
        self._proof_timeout = proof_timeout
        self._clock = clock
        self._cgroups = Cgroups(root)
        self._ledger = Ledger()
        self._readings: dict[str, Reading] = {}
        self._peaks: dict[str, int] = {}
        self._pids: dict[str, set[int]] = {}
        """The processes that each worker was last seen with: after its stop their cgroup is gone."""
        self._asking: asyncio.Task[tuple[HeldCard, ...]] | None = None
        self._asking_since = 0.0

    async def memory(self) -> Memory:
        """Return all pools as they are now; a card whose driver does not answer in time has a `problem`."""
        readings = await self._read()
        return Memory(tuple(self._ledger.pool(reading, readings) for reading in readings.values()))

    async def claim(self, worker_id: str, pool: str, claim_bytes: int) -> None:
        """Reserve bytes of a pool for a worker whose load begins now, in place of its former claim.

        Raises NoMemory, with the arithmetic, if too little is free or if that is not known, and CardLoads if
        another worker is loading on the same card.
        """
        claim = Claim(worker_id, pool, claim_bytes)
        readings = await self._read()
        # No await between these two, so that two claims at once cannot both take the last of the memory.
        self._ledger.check(claim, readings)
        self._ledger.note(claim)
        self._peaks.pop(worker_id, None)

    def adopt(self, worker_id: str, pool: str, claim_bytes: int, *, loads: bool = False) -> None:
        """Note the claim of a worker that already runs, whatever is free; `loads` if it is not ready yet."""
        self._ledger.note(Claim(worker_id, pool, claim_bytes, loads))

    async def loaded(self, worker_id: str) -> None:
        """Note that a worker's load has ended, well or not: another worker may load on its card.

        Reads what it holds now, which for most engines is the most that it will hold of a card.
        """
        self._ledger.loaded(worker_id)
        await self._read()

    async def look(self, worker_id: str) -> None:
        """Note the most that a worker has held so far, with a new reading if that is of a card."""
        claim = self._ledger.of(worker_id)
        if claim is not None and claim.pool != RAM:
            await self._read()
        self.used(worker_id)

    def release(self, worker_id: str) -> None:
        """Remove a worker's claim; it is not an error if it has none."""
        self._ledger.release(worker_id)
        self._peaks.pop(worker_id, None)
        self._pids.pop(worker_id, None)

    def used(self, worker_id: str) -> tuple[int | None, int | None]:
        """Return the bytes that a worker holds of its pool, and the most so far; None if unknown.

        RAM is read now, and its peak is the kernel's. Those of a card are of the last reading.
        """
        claim = self._ledger.of(worker_id)
        if claim is None:
            return None, None
        if claim.pool != RAM:
            reading = self._readings.get(claim.pool)
            held = reading.held.get(worker_id) if reading else None
            return held, self._peaks.get(worker_id)
        folder = self._cgroups.worker(worker_id)
        found = usage(folder) if folder else None
        if found is None:
            return None, self._peaks.get(worker_id)
        self._note_peak(worker_id, found.peak)
        return found.held, self._peaks[worker_id]

    # After a stop

    async def proven_free(self, worker_id: str, worker_pids: Iterable[int] = ()) -> Holder | None:
        """Wait until a stopped worker's memory is free; return None, or after PROOF_TIMEOUT its holder.

        To be called before release(), which forgets where the memory was. Free means that the worker's cgroup
        has no process, and that its card has none of its processes: neither `worker_pids` nor those that it
        was last seen with. If the driver does not answer, a holder with unknown bytes is returned, whose name
        says so.
        """
        suspects = {*worker_pids, *self._pids.get(worker_id, ())}
        claim = self._ledger.of(worker_id)
        deadline = self._clock() + self._proof_timeout
        while True:
            holder = await self._holder(worker_id, claim, suspects)
            if holder is None or self._clock() >= deadline:
                return holder
            await asyncio.sleep(PROOF_INTERVAL)

    async def _holder(self, worker_id: str, claim: Claim | None, suspects: set[int]) -> Holder | None:
        alive = await in_daemonic_thread(lambda: self._alive(worker_id))
        if alive is not None:
            pids_left, held = alive
            suspects.update(pids_left)
            return Holder("worker", held, worker_id, None, min(pids_left, default=None))
        if claim is None or claim.pool == RAM:
            return None
        for card in await self._cards():
            if card_pool(card.index) != claim.pool:
                continue
            if card.processes is None and card.problem is not None:
                return Holder("process", None, f"unknown, as {claim.pool} could not be read: {card.problem}")
            return await self._on_card(card, worker_id, suspects)
        return None

    def _alive(self, worker_id: str) -> tuple[set[int], int | None] | None:
        """Return the processes of a worker and the bytes of RAM that they hold; None if it has no process."""
        folder = self._cgroups.worker(worker_id)
        if folder is None or not is_populated(folder):
            return None
        found = usage(folder)
        return pids(folder), found.held if found else None

    async def _on_card(self, card: HeldCard, worker_id: str, suspects: set[int]) -> Holder | None:
        """Return the worker's process that is on a card, None if there is none.

        A PID may have been reused: one that now belongs to another unit is not the worker's.
        """
        found = [process for process in card.processes or () if process.pid in suspects]
        if not found:
            return None
        owners = await in_daemonic_thread(self._cgroups.owners)
        for process in found:
            unit = owners.get(process.pid)
            if unit is None or unit.worker_id == worker_id:
                return Holder("worker", process.memory_bytes, worker_id, None, process.pid)
        return None

    # Reading

    async def _read(self) -> Mapping[str, Reading]:
        """Return the readings of all pools: RAM, then the cards by their index."""
        cards = await self._cards()
        claims = self._ledger.all()
        self._readings, seen = await in_daemonic_thread(lambda: self._pools(cards, claims))
        kept = {worker_id: known for worker_id, known in self._pids.items() if self._ledger.of(worker_id)}
        self._pids = {**kept, **seen}
        for claim in self._ledger.all():
            reading = self._readings.get(claim.pool)
            held = reading.held.get(claim.worker_id) if reading else None
            if held is not None:
                self._note_peak(claim.worker_id, held)
        return self._readings

    def _pools(
        self, cards: tuple[HeldCard, ...], claims: tuple[Claim, ...]
    ) -> tuple[dict[str, Reading], dict[str, set[int]]]:
        """Return the readings by pool, and the processes of each worker. Blocks: to be called in a thread."""
        units = {unit.worker_id: unit.folder for unit in self._cgroups.units() if unit.worker_id}
        has_processes = any(card.processes for card in cards)
        owners: dict[int, Unit] = self._cgroups.owners() if has_processes else {}
        readings = [read_ram(self._root, self._cgroups, units)]
        for card in cards:
            on_it = [claim.worker_id for claim in claims if claim.pool == card_pool(card.index)]
            readings.append(read_card(card, owners, on_it))
        seen = {worker_id: pids(folder) for worker_id, folder in units.items()}
        return {reading.id: reading for reading in readings}, seen

    async def _cards(self) -> tuple[HeldCard, ...]:
        """Return the cards as they are now, or without readings if their drivers do not answer in time."""
        if self._asking is None or self._asking.done():
            self._asking_since = self._clock()
            self._asking = asyncio.get_running_loop().create_task(
                in_daemonic_thread(self._detector.read_held)
            )
        left = self._asking_since + self._cards_timeout - self._clock()
        done, _ = await asyncio.wait({self._asking}, timeout=max(0.0, left))
        if not done:
            waited = self._clock() - self._asking_since
            return self._unread(f"the drivers of the cards have not answered for {waited:.0f} s")
        try:
            return self._asking.result()
        except Exception as error:
            log.exception("reading the memory of the cards failed")
            return self._unread(f"reading the memory of the cards failed: {error}")

    def _unread(self, problem: str) -> tuple[HeldCard, ...]:
        devices = self._detector.latest
        return unread(devices.gpus, problem) if devices is not None else ()

    def _note_peak(self, worker_id: str, held: int) -> None:
        self._peaks[worker_id] = max(held, self._peaks.get(worker_id, 0))

    async def close(self) -> None:
        """Cancel a reading that is under way."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
