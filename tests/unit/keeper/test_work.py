"""The time that a verb may take in all."""

from __future__ import annotations

import pytest

import rbee.keeper.work
from rbee.errors import TimedOut
from rbee.keeper.work import Deadline


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(rbee.keeper.work, "time", clock)
    return clock


def test_without_a_deadline_each_wait_is_as_long_as_it_may_be(clock: Clock) -> None:
    deadline = Deadline(None)
    clock.now += 1e6

    assert deadline.left(30) == 30


def test_a_wait_is_no_longer_than_what_is_left_for_all(clock: Clock) -> None:
    deadline = Deadline(10)

    assert deadline.left(30) == 10
    clock.now += 7
    assert deadline.left(30) == 3
    assert deadline.left(1) == 1


def test_once_nothing_is_left_the_option_is_named(clock: Clock) -> None:
    deadline = Deadline(2.5)
    clock.now += 2.5

    with pytest.raises(TimedOut, match=r"not done within the 2\.5 s of --timeout"):
        deadline.left(30)
