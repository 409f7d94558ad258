"""Text of firmware and drivers, made fit for a terminal."""

from __future__ import annotations

from rbee.hive.devices.text import printable


def test_text_is_one_line_of_bounded_length_whether_bytes_or_str() -> None:
    assert printable(b" Tesla\tT4\x00\n") == "Tesla T4"
    assert printable("x" * 1000) == "x" * 256
    assert printable(b"\xff\x07") == "\N{REPLACEMENT CHARACTER}"
    assert printable(b"\x07 ") is None
