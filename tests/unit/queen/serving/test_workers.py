"""What the queen knows of workers, by what their hives report."""

from __future__ import annotations

import asyncio

import pytest

from rbee.errors import RbeeError
from rbee.queen.changes import Changes
from rbee.queen.serving.workers import SETTLING, KnownWorkers
from rbee.wire.codec import decode
from rbee.wire.types import WorkerId
from tests.unit.queen.serving.reports import GIB, Clock, report


class Request:
    """A lease that notes its end."""

    reason = ""

    def cut(self, reason: RbeeError) -> None:
        self.reason = reason.message


class Start:
    waiting = 0


def known(clock: Clock | None = None) -> KnownWorkers:
    return KnownWorkers((clock or Clock()).clocks(), Changes())


def test_an_older_report_does_not_replace_a_newer_one() -> None:
    workers = known()
    workers.take("a", report(serial=7, state="ready"))
    worker = workers.take("a", report(serial=6, state="loading"))

    assert (worker.seen.serial, worker.state) == (7, "ready")


def test_a_worker_that_is_not_reported_any_more_has_gone_with_its_leases() -> None:
    workers, request = known(), Request()
    worker = workers.take("a", report())
    other = workers.take("b", report("wasp-1"))
    worker.begin(request)
    workers.take_all("a", [], workers.asking())

    assert workers.all() == [other]
    assert request.reason == "the worker bee-1 has ended"


def test_a_worker_that_came_after_the_request_is_not_missed_in_its_answer() -> None:
    workers = known()
    number = workers.asking()
    worker = workers.take("a", report(), is_ours=True)
    workers.take_all("a", [], number)

    assert workers.all() == [worker]


def test_all_workers_of_a_hive_that_was_removed_are_forgotten() -> None:
    workers = known()
    workers.take("a", report())
    kept = workers.take("b", report())
    workers.forget_hive("a")

    assert workers.all() == [kept]


def test_when_the_last_worker_of_a_model_ended_is_kept() -> None:
    clock = Clock()
    workers = known(clock)
    assert workers.ended_ms("bee") == 0
    worker = workers.take("a", report())
    clock.now += 9
    workers.drop(worker)
    clock.now += 9
    workers.drop(worker)

    assert workers.ended_ms(worker.seen.model) == round((clock.now - 9) * 1000)


def test_a_worker_is_busy_while_it_has_leases() -> None:
    clock, request = Clock(), Request()
    worker = known(clock).take("a", report(), is_ours=True)
    assert (worker.state, worker.in_flight) == ("ready", 0)
    worker.begin(request)
    assert (worker.state, worker.in_flight, worker.view(is_pinned=True, is_known=True).in_flight) == (
        "busy",
        1,
        1,
    )
    clock.now += 9
    worker.end(request)

    assert (worker.state, worker.last_used, worker.last_used_ms) == (
        "ready",
        clock.now,
        round(clock.now * 1000),
    )


def test_a_worker_is_busy_since_its_first_lease_and_ready_since_its_last() -> None:
    clock = Clock()
    worker = known(clock).take("a", report(since_ms=5), is_ours=True)

    def since() -> int:
        return worker.view(is_pinned=False, is_known=True).since_ms

    first, second = Request(), Request()
    assert since() == 5
    worker.begin(first)
    began = since()
    assert began == round(clock.now * 1000)
    clock.now += 9
    worker.begin(second)
    worker.end(first)
    assert since() == began
    clock.now += 9
    worker.end(second)
    assert since() == round(clock.now * 1000)


def test_a_worker_that_is_about_to_answer_is_not_idle() -> None:
    worker, start = known().take("a", report(), is_ours=True), Start()
    worker.awaited = start
    assert worker.in_flight == 0
    start.waiting = 3

    assert worker.in_flight == 3


def test_a_worker_of_a_queen_before_is_not_idle_until_its_leases_may_have_been_resumed() -> None:
    clock = Clock()
    worker = known(clock).take("a", report())
    assert worker.in_flight == 1
    clock.now += SETTLING

    assert worker.in_flight == 0


def test_a_worker_holds_what_it_has_reserved_or_more() -> None:
    assert known().take("a", report(claim_bytes=GIB, used_bytes=5)).held_bytes == GIB
    assert known().take("a", report(claim_bytes=GIB, used_bytes=3 * GIB)).held_bytes == 3 * GIB


def test_a_worker_of_a_hive_that_is_away_is_unknown() -> None:
    view = (
        known()
        .take("a", report(percent=3.0))
        .view(is_pinned=False, is_known=False, why_unknown="the beehive is offline")
    )

    assert (view.state, view.reason, view.percent) == ("unknown", "the beehive is offline", None)


@pytest.mark.parametrize(
    ("model", "worker_id"),
    [
        ("bee", "bee-1"),
        ("Qwen2.5-7B_Q4", "qwen2-5-7b-q4-1"),
        ("a-very-long-name-of-a-model", "a-very-long-name-1"),
        ("---", "model-1"),
    ],
)
def test_a_new_worker_is_named_after_its_model(model: str, worker_id: str) -> None:
    made = known().new_id(model)

    assert made == worker_id
    assert decode(WorkerId, made) == made


def test_no_name_is_used_twice() -> None:
    workers = known()
    workers.take("a", report("bee-7"))
    workers.take("a", report("bee-x"))

    assert [workers.new_id("bee"), workers.new_id("bee")] == ["bee-8", "bee-9"]
    assert workers.find("bee-7") is not None
    assert workers.find("bee-7", "b") is None


async def test_each_change_wakes_those_that_wait() -> None:
    workers = known()
    waiting = asyncio.ensure_future(workers.changes.wait(5))
    await asyncio.sleep(0)
    workers.take("a", report())

    await asyncio.wait_for(waiting, 1)
