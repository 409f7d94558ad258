"""What hives report of workers."""

from __future__ import annotations

from typing import Any

from rbee.queen.hives.liveness import Clocks
from rbee.wire.workers import HiveWorker

GIB = 2**30
BEE = HiveWorker("bee-1", "bee", "llama-server", "ram", 4096, GIB, "ready", "", 1, 5)


def report(worker_id: str = "bee-1", **fields: Any) -> HiveWorker:
    return BEE._replace(id=worker_id, **fields)


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def clocks(self) -> Clocks:
        return Clocks(lambda: self.now, lambda: round(self.now * 1000))
