"""What an engine has printed during a start is written again, with the job of that start."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from rbee.hive.workers import enginelog
from rbee.hive.workers.enginelog import LATE, EngineLog, Start
from rbee.narration import ENGINE_SAID, Event, Narrator
from rbee.systemd.journal import Entry, Tail
from rbee.systemd.unit import UnitState
from tests.unit.hive.workers.played import (
    AGAIN,
    FAILED,
    JOB,
    LOADING,
    READY,
    START,
    UNIT,
    Hive,
    PlayedUnits,
    Tape,
)
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)

ONE, TWO = "1" * 32, "2" * 32
AT = 1_700_000_000_123_456
PRINTED_AT = "2023-11-14T22:13:20.123456Z"
FIELDS = {"worker": "bee-1", "model": "bee", "job_id": JOB}
FIRST = Start(UNIT, ONE, AT / 1e6, AT / 1e6 + 1, FIELDS)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(enginelog, "PAUSE", 0.01)


def printed(text: str, invocation: str = ONE, priority: int = 6, at_us: int = AT) -> Entry:
    return Entry(text, priority, at_us, invocation)


def run(state: UnitState, invocation: str, **changes: int) -> UnitState:
    return state._replace(invocation=invocation, **changes)


async def repeated(tail: Tail, *starts: Start) -> Tape:
    """The journal, once these starts have been repeated in it."""
    tape = Tape()
    engine_log = EngineLog(PlayedUnits(tail=tail), tape)
    for start in starts or (FIRST,):
        engine_log.repeat(start)
    await until(lambda: not engine_log._tasks)
    return tape


async def test_a_line_is_written_again_with_its_job_and_its_time() -> None:
    tape = await repeated(Tail((printed("loading", TWO), printed("loading"), printed("loaded"))))

    fields = {**FIELDS, "printed_at": PRINTED_AT}
    assert tape.told == [("engine-said", "loading", fields), ("engine-said", "loaded", fields)]


async def test_a_line_has_the_priority_debug_unless_the_engine_chose_one() -> None:
    written: list[Event] = []

    class Priorities(Narrator):
        def narrate(self, event: Event, text: str, **fields: str) -> None:
            written.append(event)

    tail = Tail(tuple(printed("x", priority=priority) for priority in (7, 6, 5, 3, 1, 0)))
    engine_log = EngineLog(PlayedUnits(tail=tail), Priorities())
    engine_log.repeat(FIRST)
    await until(lambda: not engine_log._tasks)

    # One of priority 0 would be shown on every terminal, again.
    assert [event.priority for event in written] == [7, 7, 5, 3, 1, 1]
    assert {event.message_id for event in written} == {ENGINE_SAID.message_id}


async def test_a_line_whose_run_is_not_known_belongs_to_the_start_of_its_time() -> None:
    times = {"early": -1, "first": 0, "last": 1_500_000, "late": 1_500_001}
    tape = await repeated(Tail(tuple(printed(text, "", at_us=AT + after) for text, after in times.items())))

    assert [text for _, text, _ in tape.told] == ["first", "last"]


async def test_what_is_printed_after_a_start_is_not_of_it() -> None:
    units, tape = PlayedUnits(), Tape()
    units.tail = Tail(tuple(printed(str(after), at_us=AT + after) for after in (1_500_000, 1_500_001)))
    engine_log = EngineLog(units, tape)
    engine_log.repeat(FIRST)
    await until(lambda: not engine_log._tasks)

    assert [text for _, text, _ in tape.told] == ["1500000"]
    assert units.time == (FIRST.began, FIRST.ended + 0.5)


@pytest.mark.parametrize(
    ("tail", "is_noted"),
    [
        (Tail((printed("a"), printed("b")), is_cut=True), True),
        (Tail((printed("a", TWO), printed("b")), is_cut=True), False),
        (Tail((printed("a"), printed("b"))), False),
        (Tail((printed("a", TWO),), is_cut=True), False),
        (Tail((), is_cut=True), False),
    ],
)
async def test_what_was_printed_before_is_noted_if_it_is_left_out(tail: Tail, is_noted: bool) -> None:
    tape = await repeated(tail)

    noted = [text == f"the lines before these are in the log of {UNIT} only" for _, text, _ in tape.told]
    assert noted == [True] * is_noted + [False] * sum(entry.invocation == ONE for entry in tail.entries)


async def test_a_long_line_is_cut_and_other_tasks_have_their_turn_between_many() -> None:
    tape = await repeated(Tail(tuple(printed("x" * 10_000) for _ in range(400))))

    assert {len(text) for _, text, _ in tape.told} == {2000}
    assert len(tape.told) == 400


async def test_starts_are_written_one_after_the_other() -> None:
    entries = tuple(printed(name, name[0] * 32) for name in ["1a"] * 60 + ["2a"] * 60)
    tape = await repeated(Tail(entries), FIRST, FIRST._replace(invocation=TWO))

    assert [text for _, text, _ in tape.told] == ["1a"] * 60 + ["2a"] * 60


async def test_a_hive_that_stops_writes_no_more() -> None:
    tape = Tape()
    engine_log = EngineLog(PlayedUnits(tail=Tail((printed("x"),))), tape)
    engine_log.repeat(FIRST)
    await asyncio.sleep(0)
    await engine_log.close()

    assert (tape.told, engine_log._tasks) == ([], set())


# The lives of workers


async def test_a_worker_is_ready_before_its_lines_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(enginelog, "PAUSE", 0.1)
    async with Hive(tmp_path) as hive:
        hive.units.tail = Tail((printed("loaded"),))
        worker = await hive.workers.start(START, JOB)
        await until(lambda: bool(hive.units.asked))
        hive.units.becomes(UNIT, run(READY, ONE))
        await until(lambda: worker.state == "ready" and hive.tape.events[-1] == "worker-ready")
        changes = hive.changes
        assert hive.engine_tape.told == []
        await until(lambda: bool(hive.engine_tape.told))

        fields = {**FIELDS, "invocation": ONE, "printed_at": PRINTED_AT}
        assert hive.engine_tape.told == [("engine-said", "loaded", fields)]
        # In the journal only: nothing is sent to the queen.
        assert (hive.tape.events, hive.changes) == (["worker-loading", "worker-ready"], changes)


async def test_each_start_of_a_job_is_written_once(tmp_path: Path) -> None:
    async with Hive(tmp_path) as hive:
        hive.units.tail = Tail((printed("one"), printed("two", TWO)))
        worker = await hive.workers.start(START, JOB)
        await until(lambda: bool(hive.units.asked))
        hive.units.becomes(UNIT, run(AGAIN, ONE))
        await until(lambda: len(hive.engine_tape.told) == 1)
        hive.units.becomes(UNIT, run(AGAIN, ONE, restarts=2))
        await until(lambda: worker.reason.endswith("in 8 s"))
        hive.units.becomes(UNIT, run(LOADING, TWO, restarts=1))
        hive.units.becomes(UNIT, run(FAILED, TWO))
        await until(lambda: len(hive.engine_tape.told) == 2)
        await asyncio.sleep(0.05)

        told = [(text, fields["invocation"], fields["job_id"]) for _, text, fields in hive.engine_tape.told]
        assert told == [("one", ONE, JOB), ("two", TWO, JOB)]
        assert worker.log == ("one", "two")


async def test_a_late_line_of_an_unknown_run_is_of_the_start_before(tmp_path: Path) -> None:
    async with Hive(tmp_path) as hive:
        worker = await hive.workers.start(START, JOB)
        await until(lambda: bool(hive.units.asked))
        at_us = int(1e6 * (time.time() + LATE / 2))
        hive.units.tail = Tail((printed("late", "", at_us=at_us),))
        hive.units.becomes(UNIT, run(AGAIN, ONE))
        await until(lambda: len(hive.engine_tape.told) == 1)
        hive.units.becomes(UNIT, run(LOADING, TWO, restarts=1))
        hive.units.becomes(UNIT, run(FAILED, TWO))
        await until(lambda: worker.state == "failed")
        await until(lambda: not hive.parts.engine_log._tasks)

        assert [(text, fields["invocation"]) for _, text, fields in hive.engine_tape.told] == [("late", ONE)]


@pytest.mark.parametrize(("job", "invocation"), [(None, ONE), (JOB, "")])
async def test_a_start_without_a_job_or_without_a_run_is_not_written(
    tmp_path: Path, job: str | None, invocation: str
) -> None:
    async with Hive(tmp_path) as hive:
        hive.units.tail = Tail((printed("loaded"),))
        worker = await hive.workers.start(START, job)
        await until(lambda: bool(hive.units.asked))
        hive.units.becomes(UNIT, run(READY, invocation))
        await until(lambda: worker.state == "ready")
        await asyncio.sleep(0.05)

        assert hive.engine_tape.told == []


async def test_what_happens_after_a_start_is_not_part_of_its_job(tmp_path: Path) -> None:
    async with Hive(tmp_path) as hive:
        hive.units.tail = Tail((printed("one"), printed("two", TWO)))
        worker = await hive.workers.start(START, JOB)
        await until(lambda: bool(hive.units.asked))
        hive.units.becomes(UNIT, run(READY, ONE))
        await until(lambda: worker.state == "ready")
        hive.units.becomes(UNIT, run(AGAIN, ONE))
        await until(lambda: worker.state == "loading")
        hive.units.becomes(UNIT, run(READY, TWO, restarts=1))
        await until(lambda: worker.state == "ready")
        await asyncio.sleep(0.05)

        assert [text for _, text, _ in hive.engine_tape.told] == ["one"]
