"""A worker's state, and waiting for a newer one."""

from __future__ import annotations

import asyncio

import pytest

from rbee.hive.work import Serials
from rbee.hive.workers.worker import LOG_LINES, LOG_TEXT, Worker
from rbee.wire.codec import decode, encode
from rbee.wire.workers import HiveWorker, StartWorker

pytestmark = pytest.mark.deadline(5)

START = StartWorker("bee-1", "bee", "test", "/srv/bee.gguf", "gguf", 4096, "ram", 2**30)


def a_worker(*times: int) -> Worker:
    clock = iter(times or range(1, 1000))
    return Worker(START, Serials(lambda: 7), clock_ms=lambda: next(clock))


def test_its_serial_grows_with_each_change_and_since_with_each_state() -> None:
    worker = a_worker(10, 20, 30)
    assert (worker.state, worker.serial, worker.since_ms) == ("loading", 7, 10)
    assert not worker.change("loading", percent=5)
    assert (worker.serial, worker.since_ms, worker.percent) == (8, 10, 5)
    assert not worker.change("loading", percent=5)
    assert worker.serial == 8
    assert worker.change("ready", pid=4711)
    assert (worker.serial, worker.since_ms, worker.percent, worker.pid) == (9, 20, None, 4711)
    assert worker.change("failed", "why")
    assert worker.is_over


def test_what_it_reports_fits_its_shape_whatever_an_engine_wrote() -> None:
    worker = a_worker()
    worker.change("failed", "it ended", log=["\33[31mred\0", "x" * 10_000, *map(str, range(100))])

    view = worker.view(1, 2)

    assert decode(HiveWorker, encode(view)) == view
    assert (len(view.log), view.log[-1], view.used_bytes, view.peak_bytes) == (LOG_LINES, "99", 1, 2)
    worker.change("failed", "it ended", log=["\33[31mred\0", "x" * 10_000])
    assert worker.log[0] == "\\x1b[31mred\\x00"
    assert len(worker.log[1]) == LOG_TEXT


async def test_a_newer_state_is_waited_for_and_not_for_ever() -> None:
    worker = a_worker()
    await worker.newer(0, 5)  # it is newer
    await worker.newer(worker.serial, 0.01)
    waiting = [asyncio.ensure_future(worker.newer(worker.serial + 1, 5)) for _ in range(3)]
    await asyncio.sleep(0)
    worker.change("loading", percent=1)
    done, _ = await asyncio.wait(waiting, timeout=0.01)
    assert not done
    worker.change("ready")
    await asyncio.gather(*waiting)
