"""Opens the paths that a user names: regular files only, without waiting for a FIFO's writer."""

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
    """Open a regular file for reading, following links, and yield it with its size in bytes.

    Raises BadInput if it is not a regular file, and as explained() if it cannot be read.
    """
    if "\0" in os.fspath(path):
        raise BadInput("the path has a NUL character", field="path")
    with explained(path, "read"):
        number = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    status = os.fstat(number)
    if not stat.S_ISREG(status.st_mode):
        os.close(number)
        raise BadInput(f"{path} is not a regular file", hint="Give the path of a model's file.")
    with open(number, "rb") as file, explained(path, "read"):
        yield file, status.st_size


def read_bounded(path: Path, most: int) -> bytes:
    """Return the content of a regular file. Raises as opened(), and BadInput above `most` bytes."""
    with opened(path) as (file, _size):
        content = file.read(most + 1)
    if len(content) > most:
        raise BadInput(f"{path} has more than {most} bytes, the limit of such a file")
    return content
