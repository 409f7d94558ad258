"""Where a file comes from."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

BLOCK = 2**20
"""Bytes that are read and written at once."""


@dataclass(frozen=True)
class Answer:
    """The bytes of a file from `begin` on: where they were asked for, or from the start.

    `version` names the file's content, None if the source does not. `total` are its bytes, None if the
    source does not say.
    """

    begin: int
    total: int | None
    version: str | None
    blocks: Iterable[bytes]


class Source(Protocol):
    """Where a file comes from."""

    def open(self, begin: int, version: str | None) -> AbstractContextManager[Answer]:
        """Ask for the bytes from `begin` on, if the file still is `version`; None if that is not known.

        Raises Again, Anew and Verdict, also while the blocks are read.
        """
