"""What a store promises, on every engine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from rbee.queen.metrics import Metrics
from rbee.queen.store.engine import Engine
from rbee.queen.store.store import Store
from tests.unit.queen.store.engines import ENGINES


@pytest.mark.parametrize("open_engine", ENGINES.values(), ids=ENGINES)
async def test_a_store_that_is_closed_opens_again_with_what_was_written(
    path: Path, open_engine: Callable[[Path, Metrics], Engine]
) -> None:
    first = Store.open(path, open_engine=open_engine)
    row = await first.hives.add("localhost", "localhost", 8600)
    first.close()

    second = Store.open(path, open_engine=open_engine)
    found = await second.hives.all()
    second.close()

    assert found == [row]


async def test_what_was_written_is_read(store: Store) -> None:
    for port in range(1, 100):
        await store.hives.add("a", "a", port)
        row = await store.hives.find("a")
        assert row is not None
        assert [row.port, (await store.hives.all())[0].port] == [port, port]


async def test_reads_and_writes_are_counted(path: Path) -> None:
    for open_engine in ENGINES.values():
        metrics = Metrics()
        store = Store.open(path, metrics=metrics, open_engine=open_engine)
        await store.hives.add("a", "a", 1)
        await store.hives.find("a")
        await store.hives.all()
        store.close()

        counts = {name: sum(seconds.counts) for name, seconds in metrics.catalog_seconds.items()}
        assert counts == {"read": 2, "write": 1}
        assert metrics.catalog_failures == {}
