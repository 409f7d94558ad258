"""All workers of a hive: what may be started, and what a new hive adopts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import pytest

from rbee.engines.order import Order
from rbee.errors import (
    BadInput,
    EngineUnusable,
    NoMemory,
    NotPermitted,
    RbeeError,
    Stopping,
    TooMany,
    UnknownEngine,
    UnknownWorker,
    WorkerExists,
    WorkerFailed,
    WorkerNotReady,
)
from rbee.hive.workers.workers import Workers
from rbee.scope import SYSTEM, user_scope
from rbee.systemd.unit import UnitState
from rbee.wire.devices import Devices
from rbee.wire.workers import StartWorker
from tests.unit.hive.workers.played import FAILED, JOB, LOADING, READY, START, UNIT, Hive, PlayedUnits
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)


async def test_the_order_has_what_the_engine_needs(tmp_path: Path) -> None:
    async with Hive(tmp_path) as hive:
        await hive.workers.start(START, JOB)

        text = (hive.folder / "bee-1/environment").read_text()
        assert (
            r'RBEE_ARGV="[\"/bin/engine\", \"/run/rbee-worker/bee-1/model\", '
            r'\"/run/rbee-worker/bee-1/engine.sock\", \"bee\", \"4096\"]"'
        ) in text.splitlines()
        assert f'RBEE_JOB_ID="{JOB}"' in text.splitlines()
        assert r'RBEE_ENVIRONMENT="{\"A\": \"bee\"}"' in text.splitlines()
        view = hive.workers.view(hive.workers.find("bee-1"))
        assert (view.used_bytes, view.peak_bytes, view.claim_bytes) == (1, 2, 2**30)


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"engine": "none"}, UnknownEngine, "this hive has no engine none"),
        ({"engine": "bad"}, UnknownEngine, "this hive has no engine bad: .*bad.conf:1: it is before"),
        ({"format": "safetensors"}, UnknownEngine, "serves gguf, not safetensors"),
        ({"engine": "gone"}, EngineUnusable, "/bin/gone was not found"),
        ({"pool": "gpu7"}, BadInput, "no card gpu7"),
    ],
)
async def test_what_cannot_be_started_is_refused_and_leaves_nothing(
    tmp_path: Path, change: dict[str, str], kind: type[RbeeError], said: str
) -> None:
    async with Hive(tmp_path) as hive:
        engines = tmp_path / "etc/rbee/engines.d"
        (engines / "bad.conf").write_text("Exec=/bin/x\n")
        (engines / "gone.conf").write_text("[Engine]\nExec=/bin/gone\nFormats=gguf\n")
        with pytest.raises(kind, match=said):
            await hive.workers.start(START._replace(**change))  # type: ignore[arg-type]

        assert (hive.workers.all().workers, hive.book.claims, hive.units.asked) == ((), {}, [])
        assert not list(hive.folder.glob("*"))


async def test_without_memory_nothing_is_started(tmp_path: Path) -> None:
    async with Hive(tmp_path) as hive:
        hive.book.refusal = NoMemory("1.0 GiB is claimed, and 0.5 GiB free")
        with pytest.raises(NoMemory):
            await hive.workers.start(START)
        assert (hive.workers.all().workers, hive.units.asked) == ((), [])


async def test_an_id_is_that_of_one_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Hive(tmp_path) as hive:
        await hive.workers.start(START)
        with pytest.raises(WorkerExists, match="the worker bee-1 already exists and is loading"):
            await hive.workers.start(START)
        monkeypatch.setattr("rbee.hive.workers.workers.WORKERS_MAX", 1)
        with pytest.raises(TooMany, match="this hive has 1 workers"):
            await hive.workers.start(START._replace(id="bee-2"))
        with pytest.raises(UnknownWorker):
            hive.workers.find("bee-2")
        with pytest.raises(WorkerNotReady, match="the worker bee-1 is loading"):
            await hive.workers.connect("bee-1")


async def test_a_user_s_own_rbee_starts_none_and_says_whose_does(tmp_path: Path) -> None:
    async with Hive(tmp_path, scope=user_scope({"HOME": str(tmp_path)})) as hive:
        with pytest.raises(NotPermitted, match="a user's own rbee cannot start workers"):
            await hive.workers.start(START)
        await hive.workers.adopt()
        assert hive.workers.all().workers == ()


# Adoption


async def left(tmp_path: Path, *ids: str) -> list[StartWorker]:
    """What a hive has left that was killed."""
    starts = [START._replace(id=worker_id) for worker_id in ids]
    async with Hive(tmp_path) as hive:
        for start in starts:
            await hive.workers.start(start)
    return starts


async def test_a_new_hive_adopts_what_runs_and_forgets_what_has_ended(tmp_path: Path) -> None:
    await left(tmp_path, "bee-1", "bee-2", "bee-3", "bee-4")
    units = PlayedUnits(
        {
            UNIT: READY,
            UNIT.replace("1", "2"): LOADING,
            UNIT.replace("1", "3"): FAILED,
        }
    )
    async with Hive(tmp_path, units) as hive:
        await hive.workers.adopt()
        assert hive.workers.find("bee-1").state == "ready"
        assert hive.workers.find("bee-1").pid == 7
        await until(lambda: hive.workers.find("bee-3").state == "failed")
        with pytest.raises(UnknownWorker):
            hive.workers.find("bee-4")
        assert sorted(hive.book.claims) == ["bee-1", "bee-2"]
        assert hive.book.loads == {"bee-2"}
        assert (units.asked, hive.changes > 0) == ([], True)
        units.becomes(UNIT.replace("1", "2"), READY)
        await until(lambda: hive.workers.find("bee-2").state == "ready")
        assert sorted(path.name for path in hive.folder.iterdir()) == ["bee-1", "bee-2", "bee-3"]

    assert hive.tape.told[0] == (
        "worker-adopted",
        "bee runs as the worker bee-1, and is adopted",
        {"worker": "bee-1", "model": "bee"},
    )


async def test_an_engine_that_is_given_a_share_of_the_memory_is_reported_also_once_adopted(
    tmp_path: Path,
) -> None:
    share, units = START._replace(engine="share"), PlayedUnits({UNIT: READY})
    async with Hive(tmp_path, units) as hive:
        text = "[Engine]\nExec=/bin/engine %m --share %f\nFormats=gguf\n"
        (tmp_path / "etc/rbee/engines.d/share.conf").write_text(text)
        started = await hive.workers.start(share)
        assert hive.workers.view(started).fills_claim
        other = await hive.workers.start(START._replace(id="bee-2"))
        assert not hive.workers.view(other).fills_claim

    async with Hive(tmp_path, units) as hive:
        await hive.workers.adopt()
        assert hive.workers.view(hive.workers.find("bee-1")).fills_claim


async def test_a_worker_that_nobody_knows_is_stopped(tmp_path: Path) -> None:
    scope = SYSTEM._replace(runtime=tmp_path / "run/rbee")
    (scope.worker_runtime / "lost").mkdir(parents=True)
    async with Hive(tmp_path, scope=scope) as hive:
        await hive.workers.adopt()

    assert hive.units.asked == [("stop", "rbee-worker@lost.service")]


async def test_a_systemd_that_is_silent_costs_no_worker(tmp_path: Path) -> None:
    await left(tmp_path, "bee-1", "bee-2")
    units = PlayedUnits({UNIT: READY, UNIT.replace("1", "2"): READY}, silent=1)
    scope = SYSTEM._replace(runtime=tmp_path / "run/rbee")
    (scope.worker_runtime / "bee-1").mkdir(parents=True)
    async with Hive(tmp_path, units, scope) as hive:
        await hive.workers.adopt()
        assert [view.id for view in hive.workers.all().workers] == ["bee-1", "bee-2"]
        await until(lambda: hive.workers.find("bee-1").state == "ready")
        assert units.asked == []


# A start that is stopped, cancelled, or left by its hive before the engine's unit is started

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
