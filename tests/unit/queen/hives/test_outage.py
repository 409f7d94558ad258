"""The death of many, told from the loss of the queen's own network."""

from __future__ import annotations

import pytest

import rbee.queen.hives.outage
from rbee.queen.hives.outage import OutageDetector

WINDOW = 20.0


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_most_of_a_fleet_at_once_is_said_once_with_all_that_have_gone() -> None:
    detector = OutageDetector(clock=Clock())

    assert detector.note("a", online=4, window=WINDOW) is None
    assert detector.note("b", online=3, window=WINDOW) is None
    lost = detector.note("c", online=2, window=WINDOW)
    assert lost is not None
    assert (lost.hives, lost.lost, lost.of) == (("a", "b", "c"), 3, 5)
    assert str(lost) == "3 of 5 hives were lost within 20 s"
    last = detector.note("d", online=1, window=WINDOW)
    assert last is not None
    assert (last.hives, last.lost, last.of) == ((), 4, 5)


def test_less_than_most_is_each_hive_s_own_affair() -> None:
    detector = OutageDetector(clock=Clock())

    assert all(detector.note(name, online=10 - n, window=WINDOW) is None for n, name in enumerate("abcde", 1))


def test_one_hive_again_and_again_is_one_hive() -> None:
    detector = OutageDetector(clock=Clock())

    assert all(detector.note("a", online=0, window=WINDOW) is None for _ in range(10))


def test_two_of_two_are_too_few_to_tell() -> None:
    detector = OutageDetector(clock=Clock())

    assert detector.note("a", online=1, window=WINDOW) is None
    assert detector.note("b", online=0, window=WINDOW) is None


def test_one_after_the_other_is_not_at_once_and_what_is_over_is_news_again() -> None:
    clock = Clock()
    detector = OutageDetector(clock=clock)
    for name in "abcdef":
        clock.now += WINDOW + 1
        assert detector.note(name, online=1, window=WINDOW) is None

    for _ in range(2):
        clock.now += WINDOW + 1
        told = [detector.note(name, online=0, window=WINDOW) for name in "abc"]
        assert [lost is not None and lost.hives == ("a", "b", "c") for lost in told] == [False, False, True]


def test_what_was_lost_long_ago_is_forgotten_loss_by_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rbee.queen.hives.outage, "LOSSES_MAX", 3)
    detector = OutageDetector(clock=Clock())

    lost = [detector.note(name, online=3, window=WINDOW) for name in "abcde"]

    assert lost == [None] * 5  # never more than three at once
    assert len(detector._losses) == len(detector._counts) == 3
