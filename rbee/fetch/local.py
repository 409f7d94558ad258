"""A file on this machine, which is copied into the store."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from rbee.fetch.errors import Anew, Forbidden, NotAModel, NotThere, Unavailable, Verdict
from rbee.fetch.source import BLOCK, Answer
from rbee.files import FORBIDDEN, reason

_SANDBOX = "rbee-fetch has no access to /home, /root, /tmp and /run: use the file in place, by its path."


class LocalFile:
    """A regular file. Links are followed: caches of models consist of them. A FIFO is not waited for."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def open(self, begin: int, version: str | None) -> Iterator[Answer]:
        """As Source.open()."""
        try:
            number = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError as error:
            raise self._verdict(error) from error
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            os.close(number)
            raise NotAModel(f"{self._path} is not a regular file")
        with open(number, "rb", buffering=0) as file:
            now = _version(status)
            begin = begin if version == now else 0
            file.seek(begin)
            yield Answer(begin, status.st_size, now, self._blocks(file, now, status.st_size - begin))

    def _blocks(self, file: IO[bytes], version: str, left: int) -> Iterator[bytes]:
        """Read the `left` bytes that the file had when it was opened: one that grows would never end."""
        while left > 0:
            try:
                block = file.read(min(BLOCK, left))
            except OSError as error:
                raise self._verdict(error) from error
            if not block:
                break
            left -= len(block)
            yield block
        if _version(os.fstat(file.fileno())) != version:
            raise Anew

    def _verdict(self, error: OSError) -> Verdict:
        text = f"{self._path} cannot be read: {reason(error)}"
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return NotThere(text, hint=_SANDBOX)
        if error.errno in FORBIDDEN:
            return Forbidden(text, hint=_SANDBOX)
        return Unavailable(text)


def _version(status: os.stat_result) -> str:
    return f"{status.st_dev}-{status.st_ino}-{status.st_size}-{status.st_mtime_ns}"
