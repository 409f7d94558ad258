"""A hive's lines in the stories of jobs."""

from __future__ import annotations

import pytest

from rbee.queen.restraint import AT_ONCE, LINES
from rbee.scope import HIVE_UNIT
from rbee.wire.lines import Line
from tests.integration.queen.hives.local_hive import ACTOR, LOCALHOST, MakeQueen, beat, lines, told
from tests.unit.played_systemd import ACTIVE, NoProgram
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)


async def test_a_hive_speaks_for_itself_only_and_into_its_own_job_only(queen: MakeQueen) -> None:
    async with queen() as q:
        q.systemd.programs[HIVE_UNIT] = NoProgram()
        job = q.work.add(LOCALHOST, ACTOR)
        await until(lambda: q.systemd.states[HIVE_UNIT] == ACTIVE)
        forged = Line("queen bee", "all is well", "has-devices", "2026-01-31T12:00:00Z")

        await q.hives.heartbeat(beat(state="starting", job_id=job.id, lines=(forged,)))
        await q.hives.heartbeat(beat(state="starting", job_id="7" * 32, lines=(forged,)))
        await q.hives.heartbeat(beat(state="starting", lines=(forged,)))
        q.jobs.close()

        assert lines(await told(job))[2:] == [("bee hive", "all is well")]


async def test_a_hive_s_line_has_a_hive_s_word_whatever_it_says_and_a_job_of_its_own_or_none(
    queen: MakeQueen,
) -> None:
    async with queen() as q:
        passed_on: list[tuple[str, str, str | None]] = []
        q.hives._relay._passed_on = lambda hive_id, line, job_id: passed_on.append(
            (line.speaker, line.event, job_id)
        )
        q.systemd.programs[HIVE_UNIT] = NoProgram()
        job = q.work.add(LOCALHOST, ACTOR)
        await until(lambda: q.systemd.states[HIVE_UNIT] == ACTIVE)
        said = [
            Line("queen bee", "x", event, "2026-01-31T12:00:00Z")
            for event in ("detected", "hive-online", "queen-awake", "of-a-newer-version")
        ]

        await q.hives.heartbeat(beat(state="starting", job_id=job.id, lines=tuple(said)))
        await q.hives.heartbeat(beat(state="starting", job_id="7" * 32, lines=(said[0],)))
        q.jobs.close()

        words = ["detected", "hive-said", "hive-said", "hive-said"]
        assert passed_on == [
            *(("bee hive", word, job.id) for word in words), ("bee hive", "detected", None)
        ]  # fmt: skip


async def test_a_hive_that_speaks_without_end_is_cut_short_and_that_is_told(queen: MakeQueen) -> None:
    async with queen() as q:
        passed_on: list[str] = []
        q.hives._relay._passed_on = lambda hive_id, line, job_id: passed_on.append(line.text)
        q.systemd.programs[HIVE_UNIT] = NoProgram()
        q.work.add(LOCALHOST, ACTOR)
        await until(lambda: q.systemd.states[HIVE_UNIT] == ACTIVE)
        for number in range(LINES.burst + 400):
            line = Line("bee hive", f"{number}", "detected", "2026-01-31T12:00:00Z")
            await q.hives.heartbeat(beat(state="starting", lines=(line,)))
        assert passed_on == [f"{number}" for number in range(LINES.burst)]
        told = [text for name, text, _ in q.tape.told if name == "hive-restrained"]
        assert len(told) == AT_ONCE
        assert told[0] == f"the beehive localhost sends more lines than are relayed: {LINES.burst}"
