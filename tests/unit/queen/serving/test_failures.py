"""Failures of workers, and the pauses after them."""

from __future__ import annotations

from rbee.queen.serving.failures import BACK_OFF, Failures
from tests.unit.queen.serving.reports import Clock, report


def failing(failures: Failures, number: int) -> None:
    failures.note("a", report(f"bee-{number}", state="failed", reason="killed by SIGKILL", log=("x", "y")))


def test_the_pause_grows_with_each_failure_in_a_row() -> None:
    clock = Clock()
    failures = Failures(clock.clocks())
    pauses = []
    for number in range(9):
        failing(failures, number)
        pauses.append(failures.pause("bee"))

    assert pauses == [*BACK_OFF, BACK_OFF[-1], BACK_OFF[-1]]
    clock.now += 299
    assert failures.pause("bee") == 1
    clock.now += 2
    assert failures.pause("bee") == 0


def test_a_failure_that_is_reported_twice_counts_once() -> None:
    failures = Failures(Clock().clocks())
    failing(failures, 1)
    failing(failures, 1)

    failure = failures.find("bee")
    assert failure is not None
    assert failure.count == 1


def test_a_success_ends_the_row() -> None:
    failures = Failures(Clock().clocks())
    failing(failures, 1)
    failing(failures, 2)
    failures.forget("bee")
    failing(failures, 3)

    assert failures.pause("bee") == 0
    assert failures.find("wasp") is None


def test_the_error_has_why_where_and_the_engines_last_lines() -> None:
    failures = Failures(Clock().clocks())
    failing(failures, 1)
    failing(failures, 2)
    failure = failures.find("bee")
    assert failure is not None
    error = failures.error(failure, "rbeectl logs bee")

    assert error.message == (
        "bee could not be started on a ram: killed by SIGKILL; the last lines of llama-server: x | y; "
        "failure 2 in a row, requests may start it again in 5 s"
    )
    assert error.hint == "rbeectl logs bee"


def test_the_failed_worker_is_shown() -> None:
    failures = Failures(Clock().clocks())
    failing(failures, 1)
    failure = failures.find("bee")
    assert failure is not None
    view = failures.view(failure, is_pinned=True)

    assert (view.state, view.reason, view.log, view.since_ms, view.is_pinned) == (
        "failed", "killed by SIGKILL", ("x", "y"), 100_000, True,
    )  # fmt: skip
