"""The table of tests/run --bench, its goals, and the past runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.bench import SUBJECTS
from tests.bench.lines import Goal, Line, Results
from tests.bench.past_runs import RUNS_MAX, PastRuns
from tests.bench.table import table


@pytest.mark.parametrize(
    ("goal", "before", "now", "is_met"),
    [
        (Goal(at_most=65), 180.0, 65.0, True),
        (Goal(at_most=65), None, 66.0, False),
        (Goal(of_before=0.8), 500.0, 400.0, True),
        (Goal(of_before=0.8), 500.0, 401.0, False),
        (Goal(at_most=32, of_before=0.3), 100.0, 31.0, False),
        (Goal(of_before=0.8), None, 400.0, None),
        (Goal(at_most=65), 180.0, None, None),
    ],
)
def test_a_goal_is_met_by_medians_and_unknown_without_them(
    goal: Goal, before: float | None, now: float | None, is_met: bool | None
) -> None:
    assert goal.is_met(before, now) is is_met


def test_a_line_shows_medians_with_their_spread_and_a_dash_for_what_was_not_measured() -> None:
    results = Results()
    results.add("a beat", "before", 190, 180, 200)
    results.add("a beat", "now", 57)
    last = Results({"a beat": {"before": [200.0], "now": [70.0]}})

    shown = table([Line("a beat", "µs", Goal(at_most=65)), Line("a list", "ms")], results, {"a beat": last})

    heading, beat, unmeasured = shown.splitlines()
    assert " ".join(heading.split()) == "unit before now ratio last ratio floor peer goal met"
    assert " ".join(beat.split()) == "a beat µs 190 (180–200) 57.0 x0.30 x0.35 – – ≤ 65 yes"
    assert " ".join(unmeasured.split()) == "a list ms – – – – – – – –"


def test_each_line_of_all_subjects_has_a_name_of_its_own() -> None:
    names = [line.name for subject in SUBJECTS for line in subject.lines]

    assert sorted(names) == sorted(set(names))


def test_the_last_run_of_a_line_is_the_newest_of_its_suite_that_has_it(tmp_path: Path) -> None:
    for moment, suite, line, now in (
        ("20260101T000000Z", "bookworm", "a beat", 1.0),
        ("20260102T000000Z", "bookworm", "a beat", 2.0),
        ("20260103T000000Z", "bookworm", "a list", 3.0),
        ("20260104T000000Z", "trixie", "a beat", 4.0),
    ):
        PastRuns(tmp_path, suite).keep(Results({line: {"now": [now]}}), {}).rename(
            tmp_path / f"{moment}-abc-{suite}.json"
        )

    last = PastRuns(tmp_path, "bookworm").last(["a beat", "a list", "a start"])

    assert {name: run.median(name, "now") for name, run in last.items()} == {"a beat": 2.0, "a list": 3.0}


def test_only_the_newest_runs_are_kept(tmp_path: Path) -> None:
    for number in range(RUNS_MAX):
        (tmp_path / f"20260101T{number:06}Z-abc-trixie.json").touch()

    path = PastRuns(tmp_path, "bookworm").keep(Results(), {})

    kept = sorted(one.name for one in tmp_path.iterdir())
    assert len(kept) == RUNS_MAX
    assert kept[-1] == path.name
    assert kept[0] == "20260101T000001Z-abc-trixie.json"
