"""Reads the beginning of a file as far as needed, and within bounds: the file is not trusted."""

from __future__ import annotations

import struct
from typing import Any, BinaryIO, NoReturn

from rbee.errors import BadInput

HEADER_MOST = 64 * 2**20
"""The most bytes of a file that are read for its header. The largest vocabularies take some 15 MiB."""

CHUNK = 2**20
"""The least number of bytes that is read at once."""

COUNT_MOST = 2**53
"""The largest number that a Head may have."""

COMPARE = "Get the file again, and compare its size and SHA-256 with those that its publisher states."


class Cut(BadInput):
    """The file ends before its header does: it is truncated, or has not arrived in full."""


class Reader:
    """A file that is read from its beginning; `data` is what was read, `at` the position in it.

    `name` is for messages. `size` is the final size in bytes, None if it is not known yet. The methods raise
    BadInput, and Cut if the file has not that many bytes yet.
    """

    def __init__(self, file: BinaryIO, name: str, size: int | None) -> None:
        self._file = file
        self.name = name
        self.size = size
        self.data = bytearray()
        self.at = 0

    def need(self, count: int) -> None:
        """Read until `data` has `count` bytes after the position."""
        end = self.at + count
        if end <= len(self.data):
            return
        if end > HEADER_MOST:
            self.refuse(f"its header is larger than {HEADER_MOST // 2**20} MiB")
        if self.size is not None and end > self.size:
            self.refuse_short("its header does not end within them")
        self.data += self._file.read(min(max(end - len(self.data), CHUNK), HEADER_MOST - len(self.data)))
        if end > len(self.data):
            self.cut()

    def take(self, form: str) -> Any:
        """Return the next value, in a format of the module struct."""
        size = struct.calcsize(form)
        self.need(size)
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += size
        return value

    def take_bytes(self, count: int) -> bytes:
        """Return the next bytes."""
        self.need(count)
        self.at += count
        return bytes(self.data[self.at - count : self.at])

    def cut(self) -> NoReturn:
        """Raise Cut."""
        raise Cut(
            f"{self.name} is truncated: its header does not end within its {len(self.data)} bytes",
            hint=COMPARE,
        )

    def refuse_short(self, why: str) -> NoReturn:
        """Raise BadInput for a file that has fewer bytes than it needs."""
        raise BadInput(f"{self.name} is truncated: it has {self.size} bytes, and {why}", hint=COMPARE)

    def refuse(self, why: str) -> NoReturn:
        """Raise BadInput."""
        raise BadInput(f"{self.name} is not a valid model: {why}", hint="Get the file again.")


def bounded(reader: Reader, value: int, what: str) -> int:
    """Return the value if it is from 0 to COUNT_MOST. Raises BadInput, which names it `what`."""
    if not 0 <= value <= COUNT_MOST:
        reader.refuse(f"{what} is {value}, which is out of range")
    return value
