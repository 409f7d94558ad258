"""rbeectl's standard output and error: a failed write to stdout raises an error of its own."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

from rbee.text import printable_lines


class OutputFailed(OSError):
    """A write to standard output failed, as on a full disk or if the reader has gone."""


class _Output(io.FileIO):
    def write(self, data: bytes | bytearray | memoryview) -> int | None:  # type: ignore[override]  # of typeshed: any Buffer
        try:
            return super().write(data)
        except OSError as error:
            raise OutputFailed(error.errno, error.strerror) from error


class _Complaints(io.FileIO):
    """A failed write to stderr is ignored: there is no other place to report it, but the exit code."""

    def write(self, data: bytes | bytearray | memoryview) -> int | None:  # type: ignore[override]  # of typeshed: any Buffer
        try:
            return super().write(data)
        except OSError:
            return len(memoryview(data).cast("B"))


class _Complaining(io.TextIOWrapper):
    """Escapes control characters: even a traceback may repeat text that came from outside."""

    def write(self, text: str, /) -> int:
        super().write(printable_lines(text))
        return len(text)


def open_streams() -> None:
    """Replace sys.stdout and sys.stderr with streams that escape what they cannot encode."""
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_RDWR)):
        try:
            os.fstat(number)
        except OSError:
            # Closed by the caller, and the next file that is opened would get its number. Standard output
            # becomes one that cannot be written to, as in coreutils; messages are discarded.
            os.set_inheritable(os.open(os.devnull, mode), True)
    sys.stdout = _opened(sys.stdout, sys.__stdout__, _Output, 1, io.TextIOWrapper)
    sys.stderr = _opened(sys.stderr, sys.__stderr__, _Complaints, 2, _Complaining)


def is_writable(number: int) -> bool:
    """Is a descriptor open for writing?"""
    import fcntl  # for a verb that leaves the writing to another program

    return fcntl.fcntl(number, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY


def _opened(
    now: TextIO | None,
    original: TextIO | None,
    kind: type[io.FileIO],
    number: int,
    text: type[io.TextIOWrapper],
) -> TextIO:
    """A stream in place of Python's own; one that is not Python's is kept."""
    if now is not original and now is not None:
        now.reconfigure(errors="backslashreplace")  # type: ignore[attr-defined]  # it is no TextIO by type
        return now
    raw = kind(number, "w", closefd=False)
    return text(
        io.BufferedWriter(raw),
        encoding=now.encoding if now is not None else None,
        errors="backslashreplace",
        line_buffering=number == 2 or raw.isatty(),
    )
