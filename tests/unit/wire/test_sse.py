"""What is written as server-sent events is read as what it was, however its bytes are cut."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.errors import Unreachable
from rbee.wire.sse import COMMENT, Event, Parser, event, place

IDS = st.from_regex("[0-9a-f]{1,8}(-[0-9]{1,4})?", fullmatch=True)
EVENTS = st.tuples(IDS, st.sampled_from(["line", "done"]), st.text().map(json.dumps))


def read(content: bytes, cuts: list[int]) -> list[Event]:
    parser = Parser(1000)
    marks = [0, *sorted(cut % (len(content) + 1) for cut in cuts), len(content)]
    return [event for start, end in pairwise(marks) for event in parser.feed(content[start:end])]


@given(st.lists(EVENTS), st.lists(st.integers(0, 10_000), max_size=8))
def test_events_are_read_as_they_were_written(written: list[tuple[str, str, str]], cuts: list[int]) -> None:
    content = b"".join(event(at, kind, data.encode()) + COMMENT for at, kind, data in written)

    assert read(content, cuts) == [Event(*one) for one in written]


def test_a_place_is_an_event_without_data_and_a_comment_is_none() -> None:
    assert read(COMMENT + place("a-7") + COMMENT, []) == [Event("a-7", None, None)]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"data:{}\n\n", [Event(None, None, "{}")]),
        (b"data:  {}\n\n", [Event(None, None, " {}")]),
        (b"event: done\n\n", []),
        (b"words without sense\n\n", []),
        (b"data: \xff\n\n", [Event(None, None, "\ufffd")]),
        (b"data: {}\n", []),
        (b"", []),
    ],
)
def test_what_others_may_write_is_read_or_passed_over(content: bytes, found: list[Event]) -> None:
    assert read(content, []) == found


def test_an_event_that_does_not_end_is_refused() -> None:
    parser = Parser(10)
    parser.feed(b"data: 1234")

    with pytest.raises(Unreachable, match="larger than 10 bytes"):
        parser.feed(b"5")
