"""The fetches of a hive: one a file, over restarts, until they are done, failed or cancelled."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rbee.errors import BadInput, NameTaken, RbeeError, Stopping, TooMany, UnitFailed, UnknownFetch
from rbee.hive.models.fetches import KEEP, RUNNING_MOST, Fetches
from rbee.modelfile.store import FetchResult, StoreRequest
from rbee.wire.models import Fetch, FetchView
from tests.unit.hive.models.played import (
    FAILED,
    FETCH,
    INACTIVE,
    SUM,
    UNIT,
    URL,
    Played,
    Tape,
    scope_in,
)
from tests.unit.wait import until


class House:
    def __init__(self, folder: Path) -> None:
        self.played = Played(scope_in(folder))
        self.tape = Tape()

    @asynccontextmanager
    async def hive(self) -> AsyncIterator[Fetches]:
        """A hive that runs; its fetches go on after it."""
        async with Fetches.open(self.played.scope, self.played, self.played, self.tape) as fetches:
            yield fetches

    @property
    def requests(self) -> list[str]:
        folder = self.played.scope.fetch_requests
        return sorted(os.listdir(folder)) if folder.exists() else []

    @property
    def left(self) -> list[str]:
        store = self.played.store
        return sorted(os.listdir(store.fetches)) if store.fetches.exists() else []


@pytest.fixture
@asynccontextmanager
async def house(tmp_path: Path) -> AsyncIterator[House]:
    house = House(tmp_path)
    yield house
    await house.played.close()


async def ended(fetches: Fetches, fetch_id: str = "one") -> FetchView:
    view = await fetches.state(fetch_id)
    while view.state == "fetching":
        view = await fetches.state(fetch_id, after=view.serial, wait=5)
    return view


async def test_a_file_is_fetched(house: House) -> None:
    async with house.hive() as fetches:
        view = await fetches.fetch(FETCH, "7" * 32)
        assert (view.state, view.model) == ("fetching", "bee")
        view = await ended(fetches)

    assert (view.state, view.sha256) == ("done", SUM)
    assert house.requests == []
    assert house.tape.told == [
        (
            "fetching",
            "fetching bee from https://example.org/bee.gguf",
            {"model": "bee", "fetch": "one", "job_id": "7" * 32},
        )
    ]


async def test_two_fetches_of_one_file_are_one(house: House) -> None:
    house.played.program = house.played.waits
    async with house.hive() as fetches:
        first = await fetches.fetch(FETCH)
        second = await fetches.fetch(FETCH._replace(model="wasp"))
        assert first.id == second.id
        with pytest.raises(NameTaken):
            await fetches.fetch(FETCH._replace(sha256=SUM))
        await until(lambda: ("start", UNIT) in house.played.asked)

    assert house.played.asked == [("start", UNIT)]


async def test_one_that_is_done_is_not_fetched_again_until_its_file_is_gone(house: House) -> None:
    async with house.hive() as fetches:
        await fetches.fetch(FETCH)
        await ended(fetches)
        assert (await fetches.fetch(FETCH)).state == "done"
    async with house.hive() as fetches:
        assert (await fetches.fetch(FETCH)).state == "done"
        assert len(house.played.asked) == 1
        await fetches.remove_file(SUM)
        await fetches.remove_file(SUM)
        house.played.store.result("one").unlink()
        assert (await fetches.fetch(FETCH)).state == "fetching"
        await ended(fetches)

    assert [unit for verb, unit in house.played.asked if verb == "start"] == [
        UNIT,
        f"rbee-fetch@remove-{SUM[:48]}.service",
        UNIT,
    ]
    assert [event for event, _, _ in house.tape.told] == ["fetching", "file-removed", "fetching"]
    assert house.requests == []


async def test_progress_is_seen_by_who_waits(house: House) -> None:
    house.played.program = house.played.waits
    async with house.hive() as fetches:
        view = await fetches.fetch(FETCH)
        await until(lambda: ("start", UNIT) in house.played.asked)
        house.played.tells("5 of 10 bytes (50 %)")
        view = await fetches.state("one", after=view.serial, wait=5)

    assert (view.state, view.bytes, view.total) == ("fetching", 5, 10)


async def test_a_fetch_that_fails_says_why_and_may_be_tried_again(house: House) -> None:
    async def fails(_unit: str, _request: StoreRequest) -> object:
        house.played.note("one", FetchResult("bee", "failed", "the server answers 404", 0))
        return FAILED

    house.played.program = fails  # type: ignore[assignment]
    async with house.hive() as fetches:
        await fetches.fetch(FETCH)
        view = await ended(fetches)
        assert (view.state, view.reason) == ("failed", "the server answers 404")
        await until(lambda: house.requests == [])
        await until(lambda: house.played.states[UNIT].active == "inactive")
        house.played.program = house.played.does
        await fetches.fetch(FETCH)
        assert (await ended(fetches)).state == "done"
    assert house.played.asked == [("start", UNIT), ("reset-failed", UNIT), ("start", UNIT)]


async def test_a_failure_that_systemd_does_not_forget_is_settled_all_the_same(house: House) -> None:
    async def fails(_unit: str, _request: StoreRequest) -> object:
        house.played.note("one", FetchResult("bee", "failed", "the server answers 404", 0))
        house.played.refusal = RbeeError("the bus is away")
        return FAILED

    house.played.program = fails  # type: ignore[assignment]
    async with house.hive() as fetches:
        await fetches.fetch(FETCH)
        assert (await ended(fetches)).state == "failed"
        await until(lambda: house.requests == [])


async def test_a_new_hive_goes_on_with_what_runs_and_with_what_was_stopped(house: House) -> None:
    house.played.program = house.played.waits
    async with house.hive() as fetches:
        serial = (await fetches.fetch(FETCH)).serial
        await until(lambda: ("start", UNIT) in house.played.asked)
    assert house.requests == ["one"]

    async with house.hive() as fetches:
        await asyncio.sleep(0.01)
        assert house.played.asked == [("start", UNIT)]
        # All of rbee is stopped, or the machine.
        await house.played.end(UNIT)
        view = await fetches.state("one", after=serial, wait=5)
        view = await fetches.state("one", after=view.serial, wait=0.05)
        assert (view.state, house.requests) == ("fetching", ["one"])

    house.played.program = house.played.does
    async with house.hive() as fetches:
        assert (await ended(fetches)).state == "done"
    assert house.requests == []


async def test_one_that_was_stopped_goes_on_when_it_is_asked_for(house: House) -> None:
    house.played.program = house.played.waits
    async with house.hive() as fetches:
        await fetches.fetch(FETCH)
        await until(lambda: ("start", UNIT) in house.played.asked)
        await house.played.end(UNIT)
        await asyncio.sleep(0.01)
        house.played.program = house.played.does
        await fetches.fetch(FETCH)
        assert (await ended(fetches)).state == "done"


async def test_a_stop_of_everything_keeps_the_request(house: House) -> None:
    house.played.refusal = Stopping("rbee is being stopped")
    async with house.hive() as fetches:
        view = await fetches.fetch(FETCH)
        view = await fetches.state("one", after=view.serial, wait=5)
    assert (view.state, house.requests) == ("fetching", ["one"])

    house.played.refusal = UnitFailed("no such unit")
    async with house.hive() as fetches:
        view = await ended(fetches)
    assert (view.state, view.reason, house.requests) == ("failed", "no such unit", [])


async def test_a_cancelled_fetch_leaves_nothing(house: House) -> None:
    house.played.program = house.played.waits
    async with house.hive() as fetches:
        serial = (await fetches.fetch(FETCH)).serial
        await until(lambda: house.left == ["one.part"])
        waiting = asyncio.ensure_future(fetches.state("one", after=serial, wait=5))
        view = await fetches.cancel("one")
        assert view.state == "cancelled"
        assert (await waiting).serial > serial
        assert (await fetches.cancel("one")).state == "cancelled"
        with pytest.raises(UnknownFetch):
            await fetches.cancel("two")

    assert (house.left, house.requests) == ([], [])
    assert house.played.asked == [("start", UNIT), ("stop", UNIT), ("start", UNIT)]
    assert [event for event, _, _ in house.tape.told] == ["fetching", "fetch-cancelled"]


async def test_a_cancel_that_a_crash_interrupts_is_carried_out_by_the_next_hive(house: House) -> None:
    house.played.program = house.played.waits
    async with house.hive() as fetches:
        await fetches.fetch(FETCH)
        await until(lambda: house.left == ["one.part"])
    folder = house.played.scope.fetch_requests
    (folder / "one").write_text('{"forget": "one"}')
    (folder / "remove-5").write_text(f'{{"remove": "{SUM}"}}')
    house.played.put(FETCH._replace(id="two"))

    async with house.hive():
        await until(lambda: house.requests == [])
    assert house.left == ["two.result"]
    assert house.played.store.file(SUM) is None


async def test_what_nobody_needs_any_more_is_removed(house: House) -> None:
    store = house.played.store
    house.played.put(FETCH)
    house.played.note("old", FetchResult("bee", "failed", "no"))
    house.played.note("new", FetchResult("bee", "failed", "no"))
    store.part("old").touch()
    store.part("new").touch()
    long_ago = time.time() - KEEP - 60
    for path in (store.result("old"), store.part("old"), store.result("one")):
        os.utime(path, (long_ago, long_ago))

    async with house.hive():
        await until(lambda: house.left == ["new.part", "new.result", "one.result"])


async def test_there_is_a_limit(house: House) -> None:
    house.played.program = house.played.waits
    async with house.hive() as fetches:
        for number in range(RUNNING_MOST):
            await fetches.fetch(FETCH._replace(id=f"f{number}"))
        with pytest.raises(TooMany):
            await fetches.fetch(FETCH)


async def test_what_cannot_be_fetched_is_refused_at_once(house: House) -> None:
    async with house.hive() as fetches:
        with pytest.raises(BadInput, match="could be replaced"):
            await fetches.fetch(Fetch("one", "bee", "http://example.org/x"))
        with pytest.raises(UnknownFetch):
            await fetches.state("one")
    house.played.scope = house.played.scope._replace(kind="user")
    async with house.hive() as fetches:
        with pytest.raises(BadInput, match="machine's own"):
            await fetches.fetch(FETCH)
    assert (house.requests, house.played.asked) == ([], [])


async def test_no_secret_is_told(house: House) -> None:
    async with house.hive() as fetches:
        view = await fetches.fetch(FETCH)
        view = await ended(fetches)

    assert "ada:secret" in URL
    assert "ada:secret" not in repr((view, house.tape.told))
    assert house.played.states[UNIT] == INACTIVE
