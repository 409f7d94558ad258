"""Text from outside cannot steer whoever shows it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.text import printable

STEERS = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of what is shown as no sign of its own, but changes how others are shown."""


@pytest.mark.parametrize("text", ["größer 👑", "NVIDIA® GeForce™ (10 µs)", "日本語", "שלום", "a\\nb", ""])
def test_text_that_steers_nothing_is_left_as_it_is(text: str) -> None:
    assert printable(text) == text


@given(st.text(st.characters()) | st.text(st.characters(categories=("Cc", "Cf", "Cs", "Zl", "Zp"))))
def test_what_is_shown_is_one_printable_line_and_tells_what_was_there(text: str) -> None:
    shown = printable(text)

    assert not STEERS & {unicodedata.category(character) for character in shown}
    assert shown.isprintable()
    assert len(f"<{shown}>".splitlines()) == 1
    shown.encode()  # no lone surrogates
    assert printable(shown) == shown
    if "\\" not in text and text.isascii():
        assert shown.encode().decode("unicode_escape") == text
