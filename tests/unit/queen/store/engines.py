"""Each engine that there is, and what the stores' tests share: they run once for each."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rbee.narration import CATALOG_CHANGED, Event, Narrator
from rbee.queen.metrics import Metrics
from rbee.queen.store.engine import Engine
from rbee.queen.store.sqlite import SQLite
from rbee.queen.store.store import Store
from rbee.wire.devices import Cpu, Devices, Gpu

ENGINES: dict[str, Callable[[Path, Metrics], Engine]] = {"sqlite": SQLite.open}

BY = {"actor_uid": "1000", "actor_pid": "42", "job_id": "7" * 32}

DEVICES = Devices(
    Cpu("größe cpu", 1, 2, 4, 8 * 2**30),
    (Gpu(0, "nvidia", "A", "GPU-a", 24 * 2**30, "550.54", "0000:01:00.0"),),
)


class Clock:
    """The time of a store, which stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_700_000_000_000

    def __call__(self) -> int:
        return self.now


class Journal(Narrator):
    """What the journal would get."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, str]]] = []

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        assert event is CATALOG_CHANGED
        self.told.append((text, fields))

    @property
    def texts(self) -> list[str]:
        return [text for text, _ in self.told]


async def rows(store: Store, query: str) -> list[tuple[Any, ...]]:
    """What is in the tables."""
    return await store.engine.read_all(lambda session: session.rows(query))


async def change(store: Store, statement: str) -> None:
    """As somebody with the database's own shell might."""
    await store.engine.write(lambda session: session.execute(statement), lambda count: None)
