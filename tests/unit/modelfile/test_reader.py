"""Reading the beginning of a file, with bounds."""

from __future__ import annotations

import io

import pytest

from rbee.errors import BadInput
from rbee.modelfile.reader import CHUNK, COUNT_MOST, HEADER_MOST, Cut, Reader, bounded


class Zeros(io.RawIOBase):
    """Any number of zeros; `given` were read."""

    def __init__(self) -> None:
        self.given = 0

    def read(self, size: int = -1) -> bytes:
        self.given += size
        return bytes(size)


def test_values_follow_each_other() -> None:
    reader = Reader(io.BytesIO(b"\x01\x02\0abc"), "a", 6)

    assert (reader.take("<B"), reader.take("<H"), reader.take_bytes(3), reader.at) == (1, 2, b"abc", 6)
    with pytest.raises(BadInput, match="a is truncated: it has 6 bytes"):
        reader.take("<B")


def test_no_more_is_read_than_is_needed() -> None:
    file = Zeros()
    reader = Reader(file, "a", None)  # type: ignore[arg-type]

    reader.take("<Q")
    assert file.given == CHUNK
    reader.take_bytes(3 * CHUNK)
    assert file.given == 3 * CHUNK + 8


def test_a_header_has_a_bound() -> None:
    file = Zeros()
    with pytest.raises(BadInput, match="larger than 64 MiB"):
        Reader(file, "a", None).need(HEADER_MOST + 1)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="larger than 64 MiB"):
        Reader(file, "a", 2**62).need(2**62)  # type: ignore[arg-type]
    assert file.given == 0


def test_what_is_not_there_yet_differs_from_what_will_never_be() -> None:
    with pytest.raises(Cut):
        Reader(io.BytesIO(b"abc"), "a", 10).need(4)
    with pytest.raises(BadInput) as refused:
        Reader(io.BytesIO(b"abc"), "a", 3).need(4)
    assert not isinstance(refused.value, Cut)


def test_numbers_are_bounded() -> None:
    reader = Reader(io.BytesIO(), "a", 0)

    assert bounded(reader, COUNT_MOST, "it") == COUNT_MOST
    for number in (-1, COUNT_MOST + 1):
        with pytest.raises(BadInput, match=f"it is {number}, which is out of range"):
            bounded(reader, number, "it")
