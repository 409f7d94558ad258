"""Files of the kernel: what cannot be read, or is not what it should be, raises nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.hive.devices.files import (
    MOST_BYTES,
    cpu_numbers,
    read_byte_count,
    read_number,
    read_text,
    read_value,
)


def test_a_file_that_cannot_be_read_is_empty_text_and_no_value(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        assert (read_text(path), read_value(path), read_number(path)) == ("", None, None)


@pytest.mark.parametrize(
    ("content", "value", "number"),
    [(b" 42\n", b"42", 42), (b"-7\n", b"-7", -7), (b"\n", None, None), (b"0x2a", b"0x2a", None)],
)
def test_a_value_has_no_blanks_around_it_and_may_be_a_number(
    tmp_path: Path, content: bytes, value: bytes | None, number: int | None
) -> None:
    path = tmp_path / "value"
    path.write_bytes(content)

    assert (read_value(path), read_number(path)) == (value, number)


@pytest.mark.parametrize(
    ("count", "told"), [(0, 0), (MOST_BYTES, MOST_BYTES), (MOST_BYTES + 1, None), (-1, None)]
)
def test_a_byte_count_that_cannot_be_is_unknown(tmp_path: Path, count: int, told: int | None) -> None:
    path = tmp_path / "size"
    path.write_text(f"{count}\n")

    assert read_byte_count(path) == told


@pytest.mark.parametrize(
    ("text", "cpus"), [("0-2,8\n", {0, 1, 2, 8}), ("", set()), ("x,3", {3}), ("1-", set())]
)
def test_a_list_of_cpus_is_read_as_far_as_the_kernel_would_write_it(text: str, cpus: set[int]) -> None:
    assert cpu_numbers(text) == cpus
