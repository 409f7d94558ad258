"""The events that the feed keeps: the last ones, and older ones of operators; test_feed.py shows them."""

from __future__ import annotations

import json

import pytest

import rbee.queen.backlog
from rbee.queen.backlog import KEPT_SIZE, OPERATORS_KEPT, OPERATORS_SIZE, Backlog

ADA, HIVE = 1000, 995


def line(text: str, uid: int | None = None, at: str = "2026-01-31T12:00:00Z") -> bytes:
    return json.dumps({"text": text, "actor_uid": uid, "at": at}).encode()


def texts(backlog: Backlog) -> list[str]:
    return [json.loads(one)["text"] for one in backlog]


@pytest.fixture
def backlog(monkeypatch: pytest.MonkeyPatch) -> Backlog:
    """One that keeps three events."""
    monkeypatch.setattr(rbee.queen.backlog, "KEPT", 3)
    return Backlog({HIVE})


def test_the_last_events_are_kept_and_older_ones_of_operators(backlog: Backlog) -> None:
    for number, uid in enumerate((None, ADA, HIVE, 0, None, HIVE, None, None), start=1):
        backlog.append(line(str(number), uid))

    assert texts(backlog) == ["2", "4", "6", "7", "8"]
    assert [json.loads(one)["text"] for one in reversed(backlog)] == ["8", "7", "6", "4", "2"]
    assert (backlog.oldest, backlog.number) == (5, 8)
    following = [backlog.after(number) for number in range(9)]
    numbers = [None if one is None else one[0] for one in following]
    # What is not kept is left out; after the last of operators there is nothing before the kept ones.
    assert numbers == [2, 2, 4, 4, None, 6, 7, 8, None]


def test_a_moment_is_found_among_both(backlog: Backlog) -> None:
    for minute in range(6):
        backlog.append(line(str(minute), ADA if minute == 1 else None, f"2026-01-31T12:0{minute}:00Z"))
    start = 1_769_860_800_000  # 12:00

    assert [backlog.before(start + minute * 60_000) for minute in range(7)] == [1, 1, 3, 3, 4, 5, 6]


def test_what_another_has_kept_is_taken_up_and_nothing_else(backlog: Backlog) -> None:
    for number in range(1, 9):
        backlog.append(line(str(number), ADA if number == 2 else None))
    lines = list(backlog)
    events = [json.loads(one) for one in lines]

    again = Backlog({HIVE})
    assert again.could_keep([2, 6, 7, 8], events)
    again.take_up([2, 6, 7, 8], lines)
    assert (texts(again), again.oldest, again.number) == (["2", "6", "7", "8"], 5, 8)
    # One of a machine is missing; they do not rise.
    assert not again.could_keep([2, 4, 7, 8], events)
    assert not again.could_keep([2, 6, 6, 8], events)


def test_of_neither_is_more_kept_than_the_bounds_allow(backlog: Backlog) -> None:
    for _ in range(2 * OPERATORS_KEPT):
        backlog.append(line("x", ADA))
    assert len(texts(backlog)) == OPERATORS_KEPT + 3

    for _ in range(2 * OPERATORS_KEPT):
        backlog.append(line("x" * 4000, ADA))
    for _ in range(3):
        backlog.append(line("x" * (KEPT_SIZE // 2)))
    sizes = [len(one) for one in backlog]
    assert OPERATORS_SIZE - 5000 < sum(size for size in sizes if size < 5000) <= OPERATORS_SIZE
    assert sum(size for size in sizes if size > 5000) <= KEPT_SIZE
