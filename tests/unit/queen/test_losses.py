"""The death of many, told from the loss of the queen's own network."""

from __future__ import annotations

from rbee.queen.losses import Losses

WINDOW = 20.0


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_most_of_a_fleet_at_once_is_said_once_with_all_that_have_gone() -> None:
    losses = Losses(clock=Clock())

    assert losses.note("a", online=4, window=WINDOW) is None
    assert losses.note("b", online=3, window=WINDOW) is None
    lost = losses.note("c", online=2, window=WINDOW)
    assert lost is not None
    assert (lost.hives, lost.of, lost.is_news) == (("a", "b", "c"), 5, True)
    assert str(lost) == "3 of 5 hives were lost within 20 s"
    last = losses.note("d", online=1, window=WINDOW)
    assert last is not None
    assert (last.hives, last.is_news) == (("a", "b", "c", "d"), False)


def test_less_than_most_is_each_hive_s_own_affair() -> None:
    losses = Losses(clock=Clock())

    assert all(losses.note(name, online=10 - n, window=WINDOW) is None for n, name in enumerate("abcde", 1))


def test_one_hive_again_and_again_is_one_hive() -> None:
    losses = Losses(clock=Clock())

    assert all(losses.note("a", online=0, window=WINDOW) is None for _ in range(10))


def test_two_of_two_are_too_few_to_tell() -> None:
    losses = Losses(clock=Clock())

    assert losses.note("a", online=1, window=WINDOW) is None
    assert losses.note("b", online=0, window=WINDOW) is None


def test_one_after_the_other_is_not_at_once_and_what_is_over_is_news_again() -> None:
    clock = Clock()
    losses = Losses(clock=clock)
    for name in "abcdef":
        clock.now += WINDOW + 1
        assert losses.note(name, online=1, window=WINDOW) is None

    for _ in range(2):
        clock.now += WINDOW + 1
        told = [losses.note(name, online=0, window=WINDOW) for name in "abc"]
        assert [lost is not None and lost.is_news for lost in told] == [False, False, True]
