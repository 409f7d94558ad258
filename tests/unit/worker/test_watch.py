"""How far an engine has loaded, and whether that is a sign of life."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rbee.worker.watch import Progress, has_ended, loading, measure


@pytest.mark.parametrize(
    ("read", "total", "text"),
    [(0, 0, "loading"), (0, 100, "loading 0 %"), (62, 100, "loading 62 %"), (300, 100, "loading 99 %")],
)
def test_a_load_is_told_in_percent_and_is_never_over_before_it_is_ready(
    read: int, total: int, text: str
) -> None:
    assert loading(read, total) == text


@pytest.mark.parametrize(
    ("now", "is_alive"),
    [
        (Progress(10, 1.0), False),
        (Progress(10 + 2**20, 1.0), True),
        (Progress(10, 1.04), False),
        (Progress(10, 1.06), True),
    ],
)
def test_reading_and_computing_are_signs_of_life(now: Progress, is_alive: bool) -> None:
    before = Progress(10, 1.0)

    assert now.is_sign_of_life(before, before, 0.5) == is_alive


def test_what_all_processes_of_the_user_have_done_counts_but_the_watcher_s_own(tmp_path: Path) -> None:
    page = os.sysconf("SC_PAGE_SIZE")
    tick = os.sysconf("SC_CLK_TCK")

    def process(pid: int, read: int, resident: int, ticks: int) -> None:
        folder = tmp_path / str(pid)
        folder.mkdir()
        (folder / "io").write_text(f"rchar: {read}\nwchar: 1\n")
        (folder / "statm").write_text(f"9 {resident} 1 1 0 1 0\n")
        (folder / "stat").write_text(f"{pid} (a ) b) S {' '.join(['0'] * 10)} {ticks} {ticks} 0\n")

    process(70001, 100, 5, tick)
    process(70002, 200, 6, tick)
    process(os.getpid(), 10**9, 10**9, 10**9)
    (tmp_path / "self").mkdir()
    (tmp_path / "70003").mkdir()  # ends just now

    assert measure(tmp_path) == Progress(11 * page, 4.0)
    (tmp_path / "70001/io").write_text(f"rchar: {10**9}\n")
    assert measure(tmp_path).bytes == 10**9 + 200


def test_a_process_that_lives_is_waited_for() -> None:
    own = os.pidfd_open(os.getpid())
    try:
        assert not has_ended(own, 0.01)
    finally:
        os.close(own)


def test_the_answers_to_questions_do_not_add_up_to_a_sign_of_life() -> None:
    sign = Progress(10, 1.0)
    before = Progress(10, 3.0)
    assert not Progress(10, 3.01).is_sign_of_life(sign, before, 0.5)
    assert Progress(10 + 2**20, 3.01).is_sign_of_life(sign, before, 0.5)
