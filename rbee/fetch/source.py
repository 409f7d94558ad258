"""Where a file comes from."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

BLOCK = 2**20
"""Bytes that are read and written at once."""


class Answer(NamedTuple):
    """The bytes of a file from `begin` on, which is the requested offset or 0.

    `version` identifies the file's content, None if the source gives no version. `total` is the size of the
    whole file in bytes, None if the source does not report it.
    """

    begin: int
    total: int | None
    version: str | None
    blocks: Iterable[bytes]


class Source(Protocol):
    """Where a file comes from."""

    def open(self, begin: int, version: str | None) -> AbstractContextManager[Answer]:
        """Request the bytes from `begin` on, if the file still has this `version`, None if it is not known.

        Raises Again, Anew and Verdict, also while the blocks are read.
        """
