"""What an engine promises the stores, on every engine."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import Any

from rbee.errors import TooMany
from rbee.queen.store.engine import Session
from rbee.queen.store.store import Store
from tests.unit.queen.store.engines import rows

TIMEOUT = 5.0


async def test_reads_do_not_wait_for_a_write_and_see_nothing_of_it_before_its_end(store: Store) -> None:
    await store.hives.add("a", "a", 1)
    is_writing, goes_on = threading.Event(), threading.Event()

    def write(session: Session) -> None:
        session.execute("UPDATE hives SET port = 2")
        is_writing.set()
        assert goes_on.wait(TIMEOUT)

    writing = asyncio.ensure_future(store.engine.write(write, lambda _: None))
    await asyncio.to_thread(is_writing.wait, TIMEOUT)
    try:
        (before,) = await asyncio.wait_for(store.hives.all(), TIMEOUT)
        assert await asyncio.wait_for(store.hives.find("a"), TIMEOUT) == before
        assert not writing.done()
    finally:
        goes_on.set()
    await writing

    after = await store.hives.find("a")
    assert after is not None
    assert (before.port, after.port) == (1, 2)


async def test_no_write_comes_between_what_another_reads_and_what_it_writes(store: Store) -> None:
    await store.hives.add("a", "a", 1)

    def write(session: Session) -> None:
        ((port,),) = session.rows("SELECT port FROM hives")
        session.execute("UPDATE hives SET port = :port", port=port + 1)

    await asyncio.gather(*(store.engine.write(write, lambda _: None) for _ in range(50)))

    assert await rows(store, "SELECT port FROM hives") == [(51,)]


class Writes:
    """Many that are asked for while another is under way."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._goes_on = threading.Event()
        self.told: list[str] = []

    def _stop(self, _session: Session) -> None:
        assert self._goes_on.wait(TIMEOUT)

    def _add(self, hive_id: str, session: Session) -> str:
        session.execute(
            "INSERT INTO hives (id, host, port, status, created_at_ms, updated_at_ms, wanted)"
            " VALUES (:id, 'a', 1, 'pending', 1, 1, 1)",
            id=hive_id,
        )
        if hive_id.startswith("bad"):
            raise TooMany(hive_id)
        return hive_id

    async def run(self, *hive_ids: str, cancelled: int | None = None) -> list[Any]:
        """Their outcomes."""
        write = self._store.engine.write
        first = asyncio.ensure_future(write(self._stop, lambda _: None))
        await asyncio.sleep(0)
        tasks = [
            asyncio.ensure_future(write(partial(self._add, name), self.told.append)) for name in hive_ids
        ]
        await asyncio.sleep(0)
        if cancelled is not None:
            tasks[cancelled].cancel()
            await asyncio.sleep(0)
        self._goes_on.set()
        await first
        return await asyncio.gather(*tasks, return_exceptions=True)


async def test_writes_that_waited_are_all_made_and_told_in_their_order(store: Store) -> None:
    names = [f"hive{n}" for n in range(200)]
    writes = Writes(store)

    assert await writes.run(*names) == names

    assert writes.told == names
    assert {row.id for row in await store.hives.all()} == set(names)


async def test_a_write_that_fails_takes_no_other_with_it(store: Store) -> None:
    writes = Writes(store)

    outcomes = await writes.run("a", "bad1", "b", "a", "c", "bad2")

    assert [type(outcome).__name__ for outcome in outcomes] == [
        "str", "TooMany", "str", "CatalogFailed", "str", "TooMany",
    ]  # fmt: skip
    assert writes.told == ["a", "b", "c"]
    assert [row.id for row in await store.hives.all()] == ["a", "b", "c"]


async def test_a_write_that_is_cancelled_before_it_began_is_not_made(store: Store) -> None:
    writes = Writes(store)

    await writes.run("a", "b", "c", cancelled=1)

    assert writes.told == ["a", "c"]
    assert [row.id for row in await store.hives.all()] == ["a", "c"]
