"""Printing the lines of a story: for a person on a terminal or in a pipe, and for a program."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, TextIO

from rbee.narration import ERROR, EVENTS, Teller
from rbee.text import printable
from rbee.wire.codec import encode

if TYPE_CHECKING:
    from rbee.wire.jobs import JobStarted
    from rbee.wire.lines import Line, Speaker

_COLOURS: Mapping[Speaker, str] = {
    "bee keeper": "33",
    "queen bee": "35",
    "bee hive": "36",
    "bee gateway": "34",
}
_ERRORS = frozenset(event.name for event in EVENTS if event.priority <= ERROR)
_WIDTH = len("(bee keeper) ")


class Terminal(Teller):
    """For a person: '(queen bee)  text', in colour if asked for; control characters are escaped."""

    def __init__(self, stream: TextIO, *, colour: bool = False) -> None:
        self._stream = stream
        self._colour = colour

    def relay(self, line: Line) -> None:
        # A pipe is block-buffered otherwise, and the story is live.
        print(*dressed(line, colour=self._colour), sep="", file=self._stream, flush=True)


def dressed(line: Line, *, colour: bool, text: str | None = None) -> tuple[str, str]:
    """The speaker, padded to its column, and the text; `text` replaces that of the line, cut to fit."""
    name, text = f"({line.speaker})".ljust(_WIDTH), printable(line.text) if text is None else text
    if not colour:
        return name, text
    name = f"\033[{_COLOURS[line.speaker]}m{name}\033[0m"
    return name, f"\033[31m{text}\033[0m" if line.event in _ERRORS else text


class JsonLines(Teller):
    """For a program: a JSON object per line, with event 'line', or 'job' for the job."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def begin(self, job: JobStarted) -> None:
        print(json.dumps({"event": "job", **encode(job)}), file=self._stream, flush=True)

    def relay(self, line: Line) -> None:
        fields = {
            "event": "line",
            "kind": line.event,
            "speaker": line.speaker,
            "text": line.text,
            "at": line.at,
        }
        print(json.dumps(fields), file=self._stream, flush=True)
