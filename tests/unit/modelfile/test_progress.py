"""A fetch's status text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.modelfile.progress import Progress, read


@pytest.mark.parametrize(
    ("progress", "text"),
    [
        (Progress(0, None), "0 of ? bytes"),
        (Progress(512, 1024), "512 of 1024 bytes (50 %)"),
        (Progress(0, 0), "0 of 0 bytes"),
        (Progress(3, 2, "waits: a while"), "3 of 2 bytes (100 %): waits: a while"),
    ],
)
def test_it_is_read_as_it_was_written(progress: Progress, text: str) -> None:
    assert progress.text() == text
    assert read(text) == progress


@given(st.integers(0, 2**53), st.none() | st.integers(0, 2**53), st.sampled_from(["", "a note"]))
def test_all_numbers_survive(arrived: int, total: int | None, note: str) -> None:
    assert read(Progress(arrived, total, note).text()) == Progress(arrived, total, note)


@pytest.mark.parametrize(
    "text", ["", "heartbeat every 15 s", "1 of 2", "-1 of 2 bytes", f"{'9' * 30} of ? bytes"]
)
def test_other_texts_are_no_progress(text: str) -> None:
    assert read(text) is None
