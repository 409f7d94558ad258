"""Opens what a person names: regular files only, and no FIFO is waited for."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from rbee.errors import BadInput
from rbee.files import explained


@contextmanager
def opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a regular file, links followed, for reading; also its bytes.

    Raises BadInput for anything else, and the errors of explained() for the operating system's.
    """
    if "\0" in os.fspath(path):
        raise BadInput("a path has no NUL", field="path")
    with explained(path, "read"):
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    status = os.fstat(number)
    if not stat.S_ISREG(status.st_mode):
        os.close(number)
        raise BadInput(f"{path} is not a regular file", hint="Name the file of a model.")
    with open(number, "rb") as file, explained(path, "read"):
        yield file, status.st_size


def read_bounded(path: Path, most: int) -> bytes:
    """Return all of a regular file; BadInput if it has more than `most` bytes."""
    with opened(path) as (file, _size):
        content = file.read(most + 1)
    if len(content) > most:
        raise BadInput(f"{path} has more than {most} bytes")
    return content
