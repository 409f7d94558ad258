"""A worker from its start to its end, on a systemd that is played."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rbee.engines.order import waiting
from rbee.errors import Stopping, TimedOut, UnitFailed
from rbee.hive.workers.life import held_by
from rbee.hive.workers.worker import Worker
from rbee.systemd.journal import Entry, Tail
from rbee.wire.devices import Gpu
from rbee.wire.workers import Holder
from tests.unit.hive.workers.played import AGAIN, FAILED, INACTIVE, JOB, LOADING, READY, START, UNIT, Hive
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)


async def in_state(worker: Worker, *states: str) -> None:
    await until(lambda: worker.state in states)


async def test_the_life_of_a_worker_is_narrated_and_leaves_nothing(tmp_path: Path) -> None:
    async with Hive(tmp_path) as hive:
        worker = await hive.workers.start(START, JOB)
        assert (worker.state, hive.book.claims, hive.book.loads) == ("loading", {"bee-1": 2**30}, {"bee-1"})
        assert (hive.folder / "bee-1/environment").exists()
        await until(lambda: hive.units.asked == [("start", UNIT)])
        hive.units.becomes(UNIT, LOADING._replace(status_text="loading 62 %"))
        await until(lambda: worker.percent == 62)
        hive.units.becomes(UNIT, READY)
        await in_state(worker, "ready")
        await until(lambda: hive.book.loads == set())
        before = hive.changes
        await hive.workers.stop("bee-1")

    assert (worker.state, worker.reason) == ("stopped", "")
    assert hive.units.asked == [("start", UNIT), ("stop", UNIT)]
    assert (hive.book.claims, list(hive.folder.iterdir()), hive.units.followed) == ({}, [], {})
    assert hive.changes - before == 2  # stopping, stopped
    loading, ready, stopped = hive.tape.told
    assert loading == (
        "worker-loading",
        "loading bee on ram with test",
        {"worker": "bee-1", "model": "bee", "job_id": JOB},
    )
    assert (ready[0], ready[2]) == ("worker-ready", {"worker": "bee-1", "model": "bee", "job_id": JOB})
    assert ready[1].startswith("bee is ready in ")
    assert stopped == ("worker-stopped", "bee has stopped", {"worker": "bee-1", "model": "bee"})


async def test_what_a_worker_on_a_card_holds_is_read_before_it_is_ready_and_before_it_stops(
    tmp_path: Path,
) -> None:
    async with Hive(tmp_path) as hive:
        card = Gpu(0, "nvidia", "a card", None, 8 * 2**30, None, None)
        hive.machine.latest = hive.machine.latest._replace(gpus=(card,))
        worker = await hive.workers.start(START._replace(pool="gpu0"))
        seen = []

        async def loaded(_worker_id: str) -> None:
            seen.append(worker.state)

        hive.book.loaded = loaded  # type: ignore[method-assign]
        await until(lambda: hive.units.asked == [("start", UNIT)])
        hive.units.becomes(UNIT, READY)
        await in_state(worker, "ready")
        await hive.workers.stop("bee-1")

    assert seen == ["loading"]
    assert (hive.book.looked_at, worker.peak_bytes) == (["bee-1"], 2)


async def test_an_engine_that_ends_is_started_again_and_then_given_up(tmp_path: Path) -> None:
    async with Hive(tmp_path) as hive:
        hive.units.tail = Tail((Entry("no such tensor", 6, 0, ""),))
        worker = await hive.workers.start(START)
        await until(lambda: bool(hive.units.asked))
        hive.units.becomes(UNIT, AGAIN)
        await until(lambda: bool(worker.reason))
        assert (worker.state, worker.reason) == (
            "loading",
            "the engine test ended with exit status 1; it is started again in 4 s",
        )
        assert (hive.folder / "bee-1/wait").read_bytes() == waiting(2)
        hive.units.becomes(UNIT, LOADING._replace(restarts=1))
        await until(lambda: worker.reason == "start 2: the engine test ended with exit status 1")
        hive.units.becomes(UNIT, FAILED)
        await in_state(worker, "failed")
        assert worker.reason == "given up after several starts: the engine test ended with exit status 1"
        assert worker.log == ("no such tensor",)
        assert hive.book.claims == {}
        assert [view.state for view in hive.workers.all().workers] == ["failed"]
        assert hive.tape.events == ["worker-loading", "worker-restarted", "worker-failed"]

        await hive.workers.stop("bee-1")
        assert hive.units.asked[1:] == [("stop", UNIT), ("reset-failed", UNIT)]
        assert hive.workers.all().workers == ()


async def test_a_start_that_systemd_refuses_has_failed_with_its_reason(tmp_path: Path) -> None:
    async with Hive(tmp_path) as hive:
        hive.units.refusal = Stopping("starting it: it is being stopped", hint="Wait.\nTry again.")
        worker = await hive.workers.start(START)
        await in_state(worker, "failed")

    assert worker.reason == "starting it: it is being stopped; try: Wait.; try: Try again."
    assert hive.tape.events[-1] == "worker-failed"


async def test_how_an_earlier_worker_of_its_name_has_ended_is_not_how_it_ends(tmp_path: Path) -> None:
    async with Hive(tmp_path) as hive:
        hive.units.states[UNIT] = FAILED
        hive.units.starts_late = asyncio.Event()
        worker = await hive.workers.start(START)
        await until(lambda: hive.units.looks > 0)
        await asyncio.sleep(0)
        assert (worker.state, hive.book.claims) == ("loading", {"bee-1": 2**30})
        hive.units.starts_late.set()
        await until(lambda: hive.units.states[UNIT] == LOADING)
        hive.units.becomes(UNIT, READY)
        await in_state(worker, "ready")


async def test_one_that_is_killed_to_stop_it_leaves_no_failed_unit(tmp_path: Path) -> None:
    async with Hive(tmp_path) as hive:
        worker = await hive.workers.start(START)
        await until(lambda: bool(hive.units.asked))
        hive.units.becomes(UNIT, READY)
        await in_state(worker, "ready")
        hive.units.stopped = FAILED._replace(result="timeout")
        await hive.workers.stop("bee-1")

    assert (worker.state, worker.reason) == ("stopped", "")
    assert hive.units.asked[1:] == [("stop", UNIT), ("reset-failed", UNIT)]
    assert hive.units.states[UNIT] == INACTIVE


async def test_one_that_somebody_else_stops_is_gone(tmp_path: Path) -> None:
    async with Hive(tmp_path) as hive:
        worker = await hive.workers.start(START)
        await until(lambda: bool(hive.units.asked))
        hive.units.becomes(UNIT, READY)
        await in_state(worker, "ready")
        hive.units.becomes(UNIT, INACTIVE)
        await in_state(worker, "stopped")

        assert worker.reason == "its unit ended, and not on the hive's request"
        assert (hive.workers.all().workers, hive.book.claims, list(hive.folder.iterdir())) == ((), {}, [])


async def test_who_still_holds_memory_is_named(tmp_path: Path) -> None:
    async with Hive(tmp_path) as hive:
        worker = await hive.workers.start(START)
        await until(lambda: bool(hive.units.asked))
        hive.units.becomes(UNIT, READY)
        await in_state(worker, "ready")
        hive.book.holder = Holder("process", 3 * 2**30, "python3", "ada", 4711)
        await hive.workers.stop("bee-1")

    assert worker.reason == "3.0 GiB of ram is still held by python3 (process 4711) of ada"
    assert hive.tape.events[-2:] == ["memory-held", "worker-stopped"]
    assert held_by(Holder("process", None), "gpu0") == "memory of gpu0 is still held by a process"


@pytest.mark.parametrize("error", [TimedOut("too long"), UnitFailed("no")])
async def test_one_that_systemd_does_not_stop_is_followed_on(tmp_path: Path, error: UnitFailed) -> None:
    async with Hive(tmp_path) as hive:
        worker = await hive.workers.start(START)
        await until(lambda: bool(hive.units.asked))
        hive.units.becomes(UNIT, READY)
        await in_state(worker, "ready")
        hive.units.refusal = error
        with pytest.raises(type(error)):
            await hive.workers.stop("bee-1")
        await in_state(worker, "ready")
        await hive.workers.stop("bee-1")
        assert worker.state == "stopped"


async def test_two_who_stop_a_worker_stop_it_once(tmp_path: Path) -> None:
    async with Hive(tmp_path) as hive:
        worker = await hive.workers.start(START)
        await until(lambda: bool(hive.units.asked))
        hive.units.becomes(UNIT, READY)
        await in_state(worker, "ready")
        one = asyncio.ensure_future(hive.workers.stop("bee-1"))
        two = asyncio.ensure_future(hive.workers.stop("bee-1"))
        await asyncio.sleep(0)
        one.cancel()
        await two
        await asyncio.gather(one, return_exceptions=True)

    assert hive.units.asked == [("start", UNIT), ("stop", UNIT)]


async def test_a_systemd_that_is_silent_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.hive.workers.life.RETRY_INTERVAL", 0.01)
    async with Hive(tmp_path) as hive:
        hive.units.silent = 3
        worker = await hive.workers.start(START)
        await until(lambda: bool(hive.units.asked))
        hive.units.becomes(UNIT, READY)
        await in_state(worker, "ready")


async def test_a_worker_is_looked_at_again_even_if_no_signal_comes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.hive.workers.life.LOOK_AGAIN", 0.05)
    async with Hive(tmp_path) as hive:
        worker = await hive.workers.start(START)
        await until(lambda: bool(hive.units.asked))
        await asyncio.sleep(0)
        hive.units.states[UNIT] = READY
        await in_state(worker, "ready")


async def test_the_refusal_of_a_first_start_is_not_the_reason_of_a_later_end(tmp_path: Path) -> None:
    async with Hive(tmp_path) as hive:
        hive.units.refusal = UnitFailed("the first start failed")
        hive.units.states[UNIT] = LOADING  # systemd starts it again
        worker = await hive.workers.start(START)
        await until(lambda: worker.state == "loading" and bool(hive.units.asked))
        hive.units.becomes(UNIT, READY._replace(restarts=1))
        await in_state(worker, "ready")
        hive.units.becomes(UNIT, INACTIVE)
        await in_state(worker, "stopped", "failed")

    assert (worker.state, worker.reason) == ("stopped", "its unit ended, and not on the hive's request")


async def test_ends_before_a_long_good_time_do_not_lengthen_the_delay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Hive(tmp_path) as hive:
        worker = await hive.workers.start(START)
        await until(lambda: bool(hive.units.asked))
        hive.units.becomes(UNIT, READY._replace(restarts=2))
        await in_state(worker, "ready")
        hive.units.becomes(UNIT, AGAIN._replace(restarts=2))
        await in_state(worker, "loading")
        assert worker.reason.endswith("; it is started again in 8 s")
        hive.units.becomes(UNIT, READY._replace(restarts=3))
        await in_state(worker, "ready")
        monkeypatch.setattr("rbee.hive.workers.life.STEADY", 0.0)
        hive.units.becomes(UNIT, AGAIN._replace(restarts=3))
        await in_state(worker, "loading")
        assert worker.reason.endswith("; it is started again in 2 s")
        assert (hive.folder / "bee-1/wait").read_bytes() == waiting(0)
