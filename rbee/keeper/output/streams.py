"""Where rbeectl prints to: streams that say of a failed write that it was one of theirs."""

from __future__ import annotations

import io
import os
import sys
from typing import TextIO

from rbee.text import printable_lines


class OutputFailed(OSError):
    """The operating system refused a write to standard output: a full disk, a reader who has gone."""


class _Output(io.FileIO):
    def write(self, data: bytes | bytearray | memoryview) -> int | None:  # type: ignore[override]  # of typeshed: any Buffer
        try:
            return super().write(data)
        except OSError as error:
            raise OutputFailed(error.errno, error.strerror) from error


class _Complaints(io.FileIO):
    """What cannot be written there can be said nowhere: the exit code has to do."""

    def write(self, data: bytes | bytearray | memoryview) -> int | None:  # type: ignore[override]  # of typeshed: any Buffer
        try:
            return super().write(data)
        except OSError:
            return len(memoryview(data).cast("B"))


class _Complaining(io.TextIOWrapper):
    """Lets nothing through that could steer a terminal: a traceback, too, repeats what came from outside."""

    def write(self, text: str, /) -> int:
        super().write(printable_lines(text))
        return len(text)


def open_streams() -> None:
    """Have sys.stdout and sys.stderr be streams that show what they cannot encode as an escape."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed by the caller: what is said there goes nowhere
            os.open(os.devnull, os.O_RDWR)
    sys.stdout = _opened(sys.stdout, sys.__stdout__, _Output, 1, io.TextIOWrapper)
    sys.stderr = _opened(sys.stderr, sys.__stderr__, _Complaints, 2, _Complaining)


def _opened(
    now: TextIO | None,
    original: TextIO | None,
    kind: type[io.FileIO],
    number: int,
    text: type[io.TextIOWrapper],
) -> TextIO:
    """Another stream in place of Python's own; one that somebody has put there stays."""
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
