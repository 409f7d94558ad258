"""Whether a hive's work may have changed."""

from __future__ import annotations

from rbee.queen.hives.workload import Workload


def test_it_has_changed_once_a_beat_says_so_and_until_it_is_known() -> None:
    workload = Workload()
    assert not workload.is_other
    workload.heard = "a1"
    assert workload.is_other
    workload.came_with("a1")
    assert not workload.is_other


def test_that_of_another_process_is_asked_for_even_if_it_has_none() -> None:
    workload = Workload()
    workload.forget()
    assert workload.is_other
    workload.came_with(None)
    assert not workload.is_other
