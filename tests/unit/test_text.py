"""Text from outside cannot steer whoever shows it."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.text import (
    NotUtf8,
    decoded,
    last_lines,
    parse_size,
    parse_span,
    printable,
    printable_lines,
    shortened,
    shown_size,
    shown_span,
)

STEERS = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode's categories of what is shown as no sign of its own, but changes how others are shown."""


@pytest.mark.parametrize("text", ["größer 👑", "NVIDIA® GeForce™ (10 µs)", "日本語", "שלום", "a\\nb", ""])
def test_text_that_steers_nothing_is_left_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_of_several_lines_the_ends_stay_and_the_colours_that_rbee_has_where_there_is_colour() -> None:
    text = "\033[1;31mred\033[0m\n\033[8mhidden\033[2J\r\n"
    assert printable_lines(text) == r"\x1b[1;31mred\x1b[0m" + "\n" + r"\x1b[8mhidden\x1b[2J\r" + "\n"
    coloured = "\033[1;31mred\033[0m\n" + r"\x1b[8mhidden\x1b[2J\r" + "\n"
    assert printable_lines(text, has_colour=True) == coloured
    assert printable_lines("a\nb") == "a\nb"


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


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_text_of_any_editor_s_is_the_same_text(mark: str, end: str) -> None:
    assert decoded(f"{mark}größer{end}kleiner{end}".encode()) == "größer\nkleiner\n"


@pytest.mark.parametrize(
    ("content", "encoding", "message"),
    [
        ("[Queen]\n".encode("utf-16"), "UTF-16", "it is text in UTF-16, and must be UTF-8"),
        (b"\xfe\xff\0[\0\n", "UTF-16", "it is text in UTF-16, and must be UTF-8"),
        ("[Queen]\n".encode("utf-32"), "UTF-32", "it is text in UTF-32, and must be UTF-8"),
        ("[Queen]\n".encode("utf-16-le"), None, "it seems to be text in UTF-16, and must be UTF-8"),
        ("a\ngröße\n".encode("latin-1"), None, "line 2 is not UTF-8: it has the byte 0xf6"),
    ],
)
def test_a_text_that_is_not_utf_8_is_said_to_be_what_it_is(
    content: bytes, encoding: str | None, message: str
) -> None:
    with pytest.raises(NotUtf8) as caught:
        decoded(content)

    assert (str(caught.value), caught.value.encoding) == (message, encoding)


@given(st.text(), st.integers(10, 100))
def test_a_text_that_is_too_long_keeps_its_beginning_and_its_end(text: str, limit: int) -> None:
    short = shortened(text, limit)

    assert len(short) <= limit
    assert short == text or (len(short) == limit and text.startswith(short[:3]) and text.endswith(short[-3:]))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", ""),
        ("\n \n", ""),
        ("why\n", "why"),
        ("  what\n\n\twhy \n", "what why"),
        ("a banner\n" * 10 + "it failed\nwhy", "… a banner it failed why"),
        ("x" * 40 + " why", "…" + "x" * 26 + " why"),
    ],
)
def test_of_what_a_program_printed_the_last_lines_are_kept(text: str, kept: str) -> None:
    assert last_lines(text, 30) == kept


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.0512, "0.05 s"),
        (1.5, "1.5 s"),
        (5.0, "5 s"),
        (59.8755, "59.9 s"),
        (59.96, "1min"),
        (90.4, "1min 30s"),
        (600.0, "10min"),
        (7_384.0, "2h 3min"),
        (86_400.0 * 365, "365d"),
    ],
)
def test_what_is_left_of_a_deadline_is_rounded(seconds: float, shown: str) -> None:
    assert shown_span(seconds) == shown
    assert parse_span(shown) == pytest.approx(seconds, rel=0.05)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("15", 15), ("0", 0), ("2.5", 2.5), (" 7 ", 7),
        ("500ms", 0.5), ("500msec", 0.5), ("250000us", 0.25), ("250000usec", 0.25),
        ("5s", 5), ("5sec", 5), ("1second", 1), ("5seconds", 5), ("5 s", 5),
        ("2m", 120), ("2min", 120), ("1minute", 60), ("2minutes", 120),
        ("2h", 7200), ("2hr", 7200), ("1hour", 3600), ("2hours", 7200),
        ("1d", 86400), ("1day", 86400), ("2days", 172800),
        ("1min 30s", 90), ("1min30s", 90), ("1h 1min 1s 1ms", 3661.001), ("55s500ms", 55.5), ("1 min 30", 90),
        ("2 h", 7200), ("48hr", 172800),
    ],
)  # fmt: skip
def test_a_time_span_of_systemd_time_7_is_read(text: str, seconds: float) -> None:
    assert parse_span(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", " ", "s", "-5", "+5", "5 parsecs", "1e3", "5S", "1H", "5.", "0x10", "5s,", "ten", "1min -30s"],
)
def test_what_is_no_time_span_is_refused_with_examples(text: str) -> None:
    with pytest.raises(ValueError, match="is not a time span such as 15s, 500ms or 1min 30s"):
        parse_span(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("5G", 5 * 2**30),
        ("512M", 512 * 2**20),
        ("1.5G", 3 * 2**29),
        ("7", 7),
        ("2 KiB", 2048),
        ("1TB", 2**40),
    ],
)
def test_a_size_is_to_the_base_of_1024(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "G", "5g", "5 G B", "-1", "1e9", "५G", "9" * 20])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size such as"):
        parse_size(text)


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0.0 KiB"),
        (793_000, "0.8 MiB"),
        (100 * 2**20, "100.0 MiB"),
        (2**29, "0.5 GiB"),
        (2**43, "8192.0 GiB"),
    ],
)
def test_a_size_is_shown_in_the_unit_that_fits(count: int, shown: str) -> None:
    assert shown_size(count) == shown
