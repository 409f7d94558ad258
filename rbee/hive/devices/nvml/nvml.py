"""NVIDIA's cards, as NVML reports them through the module `pynvml` (nvidia-ml-py 11 to 13).

NVML shows the cards and the driver of the moment in which it was opened, and what it has open
keeps a driver from being unloaded. So NVML is opened each time that the cards are listed; to read
what they do it stays open for as long as somebody asks, and KEEP_OPEN seconds longer.

A call into a broken driver may never come back, and nothing can end a thread that is
inside one. So all of NVML happens in one daemonic thread, with helpers while several cards
are asked: the interpreter does not wait for them at exit, as it would for an executor's. (A
thread that sleeps uninterruptibly in the kernel keeps its process from ending, even by
SIGKILL; nothing here can change that.)
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from rbee.hive.devices.nvml.inventory import InventoryQuery
from rbee.hive.devices.nvml.library import Library
from rbee.hive.devices.nvml.query import Query, Shutdown
from rbee.hive.devices.nvml.readings import ACTIVITY, HOLDERS, Quantities, ReadingsQuery
from rbee.hive.devices.nvml.results import Cause, Failure, Inventory, Readings, Shown

_log = logging.getLogger(__name__)

AnyQuery = TypeVar("AnyQuery", bound=Query)

KEEP_OPEN = 30.0
"""Seconds that NVML stays open after somebody looked at what the cards do."""

READ_TIMEOUT = 2.0
"""Seconds for NVML to report what the cards do; NvmlTimeoutSec= if that is less."""

REOPEN_AFTER = 10.0
"""Seconds that NVML must have been open before it is reopened because it reports a lost card."""


class Nvml:
    """Asks NVML in one thread, which ends when there is nothing to ask and nothing is open.

    A caller that asks for what is being asked already shares that query's answer. An answer that
    came too late for its caller goes to the next one, if it is no older than that caller's timeout.
    """

    def __init__(
        self,
        timeout: float,
        *,
        keep_open: float = KEEP_OPEN,
        reopen_after: float = REOPEN_AFTER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout = timeout
        self._keep_open = keep_open
        self._reopen_after = reopen_after
        self._clock = clock
        self._changed = threading.Condition()
        self._closed = False
        self._has_thread = False
        self._inventory_query: InventoryQuery | None = None
        self._readings_queries: dict[Quantities, ReadingsQuery] = {}
        self._waiting: list[Query] = []
        self._running: Query | None = None
        self._open_until = 0.0
        self._told: Shown | None = None
        self._noted: Shown | None = None
        self.changes = 0
        """How often NVML has reported other cards, or another driver, than the query before."""

    def look(self) -> Inventory:
        """What cards there are, as far as known within `timeout` seconds; never raises."""
        with self._changed:
            if self._closed:
                return _blind("interrupted", "the hive is stopping")
            query = self._usable(self._inventory_query, self._timeout) or self._ask(InventoryQuery())
            self._inventory_query = query
            failure = self._await(query, self._timeout)
            if failure is None and self._inventory_query is query:
                self._inventory_query = None
            inventory = query.inventory(failure)
            self._told, self._noted = inventory.shown, None
            return inventory

    def read(self) -> Readings:
        """What the cards do, as far as known within READ_TIMEOUT seconds; never raises."""
        return self._read(ACTIVITY)

    def read_holders(self) -> Readings:
        """The cards' memory and the processes that hold it, as far as known within READ_TIMEOUT seconds."""
        return self._read(HOLDERS)

    def _read(self, quantities: Quantities) -> Readings:
        timeout = min(READ_TIMEOUT, self._timeout)
        with self._changed:
            if self._closed:
                return Readings((), Failure("interrupted", "the hive is stopping"))
            self._open_until = self._clock() + self._keep_open
            query = self._usable(self._readings_queries.get(quantities), timeout) or self._ask(
                ReadingsQuery(self._reopen_after, quantities)
            )
            self._readings_queries[quantities] = query
            # A caller that joins a running query waits for the rest of that query's time, or not at all.
            failure = self._await(query, query.asked_at + timeout - self._clock())
            if failure is None and self._readings_queries.get(quantities) is query:
                del self._readings_queries[quantities]
            return query.readings(failure)

    def close(self) -> None:
        """Let waiting callers return now, from any thread; later ones get no answer from NVML."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    # With the lock

    def _usable(self, asked: AnyQuery | None, timeout: float) -> AnyQuery | None:
        if asked is None or asked.finished_at is None:
            return asked
        return asked if self._clock() - asked.finished_at <= timeout else None

    def _ask(self, asked: AnyQuery) -> AnyQuery:
        asked.asked_at = self._clock()
        self._waiting.append(asked)
        self._changed.notify_all()
        if not self._has_thread:
            self._has_thread = True
            try:
                threading.Thread(target=self._run, name="nvml", daemon=True).start()
            except RuntimeError as error:  # no thread left under TasksMax=
                self._has_thread = False
                self._waiting.clear()
                asked.failure = Failure("failed", f"no thread for NVML: {error}")
                asked.finished_at = self._clock()
        return asked

    def _await(self, asked: Query, seconds: float) -> Failure | None:
        """None once it is finished, or why it is not."""
        asked.waiters += 1
        self._changed.wait_for(lambda: asked.finished_at is not None or self._closed, max(0.0, seconds))
        asked.waiters -= 1
        if asked.finished_at is not None:
            return None
        hung = (self._running or asked).asking
        if self._closed:
            return Failure("interrupted", f"the hive is stopping, {hung} unanswered")
        waited = max(seconds, self._clock() - asked.asked_at)
        return Failure("timeout", f"NVML did not answer within {round(waited, 1):g} s: {hung}")

    def _note(self, shown: Shown | None) -> None:
        """Count a change if NVML shows other cards or another driver than the last look() returned."""
        if shown is None or self._told is None or shown == self._told:
            self._noted = self._noted if shown is None else None
        elif shown != self._noted:
            self._noted = shown
            self.changes += 1

    # In the thread

    def _run(self) -> None:
        library = Library(self._clock)
        while (asked := self._next(library)) is not None:
            try:
                asked.run(library)
            except Exception as error:
                _log.exception("NVML failed: internal error")
                asked.failure = Failure("failed", f"{type(error).__name__}: {error}")
            with self._changed:
                self._running = None
                asked.finished_at = self._clock()
                # An inventory that a caller waits for is compared by look() itself.
                self._note(None if isinstance(asked, InventoryQuery) and asked.waiters else asked.shown)
                self._changed.notify_all()

    def _next(self, library: Library) -> Query | None:
        """Return the next query: Shutdown if nobody has asked for long enough, and None after that."""
        with self._changed:
            while library.is_open and not self._waiting and not self._closed:
                left = self._open_until - self._clock()
                if left <= 0:
                    break
                self._changed.wait(left)
            if self._waiting:
                self._running = self._waiting.pop(0)
            elif library.is_open:
                self._running = Shutdown()
            else:
                self._running, self._has_thread = None, False
            return self._running


def _blind(cause: Cause, detail: str) -> Inventory:
    return Inventory((), None, Failure(cause, detail))
