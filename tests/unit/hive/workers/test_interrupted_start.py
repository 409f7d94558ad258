"""A start that is stopped, cancelled, or left by its hive before the engine's unit is started."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from rbee.engines.order import Order
from rbee.errors import NoMemory, Stopping, WorkerFailed
from rbee.hive.workers.workers import Workers
from rbee.systemd.unit import UnitState
from rbee.wire.devices import Devices
from rbee.wire.workers import StartWorker
from tests.unit.hive.workers.played import READY, START, UNIT, Hive, PlayedUnits
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)

Step = Literal["order", "claim", "write"]


class Halt:
    """A step of a start, which goes on after go()."""

    def __init__(self) -> None:
        self.is_reached = False
        self._may_go = threading.Event()

    def go(self) -> None:
        self._may_go.set()

    def __call__(self) -> None:
        self.is_reached = True
        self._may_go.wait(5)


@contextmanager
def halted(hive: Hive, step: Step, monkeypatch: pytest.MonkeyPatch) -> Iterator[Halt]:
    """Have a start come to a halt in this step."""
    halt = Halt()
    write, specifications = hive.parts.specifications.write, hive.parts.specifications

    def write_late(start: StartWorker, order: Order) -> None:
        halt()
        write(start, order)

    def detect_late() -> Devices:
        halt()
        return Devices(type(hive.machine).latest.cpu)

    if step == "order":
        monkeypatch.setattr(hive.machine, "latest", None)
        monkeypatch.setattr(hive.machine, "detect", detect_late)
    elif step == "claim":
        hive.book.before_claim = lambda: asyncio.to_thread(halt)
    else:
        monkeypatch.setattr(specifications, "write", write_late)
    try:
        yield halt
    finally:
        halt.go()


def assert_nothing_is_left(hive: Hive) -> None:
    assert (hive.workers.all().workers, hive.book.claims, hive.units.asked) == ((), {}, [])
    assert not list(hive.folder.glob("*"))
    assert hive.units.followed == {}


@pytest.mark.parametrize("step", ["order", "claim", "write"])
async def test_a_worker_that_is_stopped_before_its_start_is_not_started(
    tmp_path: Path, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Hive(tmp_path) as hive:
        with halted(hive, step, monkeypatch) as halt:
            starting = asyncio.ensure_future(hive.workers.start(START))
            await until(lambda: halt.is_reached)
            assert [view.state for view in hive.workers.all().workers] == ["loading"]
            stopping = asyncio.ensure_future(hive.workers.stop("bee-1"))
            await asyncio.sleep(0.02)
            halt.go()
            worker = await stopping
            with pytest.raises(WorkerFailed, match="bee-1 was stopped before its engine was started"):
                await starting

        assert (worker.state, worker.reason) == ("stopped", "it was stopped before its engine was started")
        assert_nothing_is_left(hive)
        assert hive.tape.events == ["worker-stopped"]

        hive.book.before_claim = None
        await hive.workers.start(START)
        await until(lambda: hive.units.asked == [("start", UNIT)])


async def test_a_start_that_fails_while_it_is_stopped_says_why(tmp_path: Path) -> None:
    async with Hive(tmp_path) as hive:
        is_reached = asyncio.Event()

        async def refuse_late() -> None:
            is_reached.set()
            try:
                await asyncio.sleep(5)
            finally:
                raise NoMemory("1.0 GiB is claimed, and 0.5 GiB free")

        hive.book.before_claim = refuse_late
        starting = asyncio.ensure_future(hive.workers.start(START))
        await is_reached.wait()
        await hive.workers.stop("bee-1")
        with pytest.raises(NoMemory):
            await starting

        assert_nothing_is_left(hive)


@pytest.mark.parametrize("step", ["order", "claim", "write"])
async def test_a_start_whose_request_is_cancelled_leaves_nothing(
    tmp_path: Path, step: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Hive(tmp_path) as hive:
        with halted(hive, step, monkeypatch) as halt:
            starting = asyncio.ensure_future(hive.workers.start(START))
            await until(lambda: halt.is_reached)
            starting.cancel()
            await asyncio.sleep(0.02)
            halt.go()
            with pytest.raises(asyncio.CancelledError):
                await starting

        await asyncio.sleep(0.05)
        assert_nothing_is_left(hive)


async def test_a_request_that_is_cancelled_as_its_worker_begins_leaves_it_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Hive(tmp_path) as hive:
        follow = hive.units.follow

        def follow_cancelled(unit: str) -> asyncio.Event:
            starting.cancel()
            return follow(unit)

        monkeypatch.setattr(hive.units, "follow", follow_cancelled)
        starting = asyncio.ensure_future(hive.workers.start(START))
        await asyncio.gather(starting, return_exceptions=True)
        await until(lambda: hive.units.asked == [("start", UNIT)])

        assert [view.state for view in hive.workers.all().workers] == ["loading"]
        assert (hive.book.claims, (hive.folder / "bee-1/environment").exists()) == ({"bee-1": 2**30}, True)
        await hive.workers.stop("bee-1")


async def test_a_worker_that_is_stopped_as_it_begins_is_stopped_in_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Hive(tmp_path) as hive:
        follow = hive.units.follow
        stops: list[asyncio.Future[object]] = []

        def follow_and_stop(unit: str) -> asyncio.Event:
            if not stops:
                stops.append(asyncio.ensure_future(hive.workers.stop("bee-1")))
            return follow(unit)

        monkeypatch.setattr(hive.units, "follow", follow_and_stop)
        worker = await hive.workers.start(START)
        await stops[0]

        assert worker.state == "stopped"
        assert hive.units.asked[-1] == ("stop", UNIT)
        assert (hive.workers.all().workers, hive.book.claims) == ((), {})
        assert not list(hive.folder.glob("*"))


async def test_a_hive_that_stops_starts_no_worker_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Hive(tmp_path) as hive:
        with halted(hive, "claim", monkeypatch) as halt:
            starting = asyncio.ensure_future(hive.workers.start(START))
            await until(lambda: halt.is_reached)
            await hive.workers.close()
            # The queen tries again after this error, as the hive may only be restarting.
            with pytest.raises(Stopping, match="the hive is being stopped, and does not start"):
                await starting

        assert_nothing_is_left(hive)


async def test_an_adoption_that_is_cancelled_follows_nothing(tmp_path: Path) -> None:
    async with Hive(tmp_path) as hive:
        await hive.workers.start(START)
        await hive.workers.start(START._replace(id="bee-2"))
    before = asyncio.all_tasks()

    class Hung(PlayedUnits):
        async def state(self, unit: str) -> UnitState:
            return await (super().state(unit) if unit == UNIT else asyncio.sleep(60, READY))

    units = Hung({UNIT: READY})
    hive = Hive(tmp_path, units)
    parts = hive.parts
    opening = asyncio.ensure_future(
        Workers.open(
            parts.scope, hive.folder, parts.book, units, hive.tape, parts.work, hive.machine, hive.engine_tape
        )
    )
    await until(lambda: UNIT in units.followed)
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening

    assert asyncio.all_tasks() == before
