"""A story on a terminal: the current step has a spinner, and each finished one the time that it took.

When the story ends, it is redrawn as it would be in a pipe. If it is uncertain what is on the screen,
as after a resize, the steps stay as they are. The cursor is never hidden, so that it need not be
restored, however rbeectl ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from rbee.keeper.output.lines import dressed
from rbee.keeper.output.screen import Screen
from rbee.narration import Teller

if TYPE_CHECKING:
    from rbee.wire.lines import Line

TICK = 0.1
"""Seconds between two frames of the spinner."""

ROOM_FOR_TIME = 24
"""Columns of a terminal that is too narrow to show how long a step took."""

_SPINNERS = {True: "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏", False: "|/-\\"}
_DONE = {True: "✓", False: "+"}
_FAILED = {True: "✗", False: "x"}


class Progress(Teller):
    """For a terminal on which the cursor can be moved; `find` reads its size again."""

    def __init__(
        self,
        stream: TextIO,
        screen: Screen,
        *,
        find: Callable[[], Screen] = Screen.find,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream
        self._screen = screen
        self._find = find
        self._clock = clock
        self._lines: list[Line] = []
        self._began = 0.0
        self._frame = 0
        self._drawing = threading.Lock()
        self._is_over = threading.Event()
        self._is_asking = False
        self._is_whole = True
        """Is everything on the screen below the first step part of the story?"""
        self._has_spinner = False

    def relay(self, line: Line) -> None:
        with self._drawing:
            if self._is_over.is_set():
                return  # a shutdown's story comes from a thread, and may go on after the verb has ended
            self._finish(_DONE)
            self._lines.append(line)
            self._began = self._clock()
            self._draw(" ")
        if not self._has_spinner:
            self._has_spinner = True
            # It is optional: there is none if the user may have no more threads (RLIMIT_NPROC).
            with suppress(RuntimeError):
                threading.Thread(target=self._spin, name="spinner", daemon=True).start()

    def close(self, *, went_well: bool) -> None:
        with self._drawing:
            # The spinner reads this with the lock. It is not joined: Ctrl-C may have come while it started.
            self._is_over.set()
            self._finish(_DONE if went_well else _FAILED)
            if went_well:
                self._collapse()

    def leave_as_it_is(self) -> None:
        """Something else was written to the terminal: what is on the screen is not redrawn at the end."""
        # Without the lock, which the main thread may hold as a signal's handler calls this.
        self._is_whole = False

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Leave the line below the step to a question; after that the steps are not redrawn."""
        with self._drawing:
            if self._lines:
                self._draw(" ")
                self._write("\n")
            self._is_asking, self._is_whole = True, False
        try:
            yield
        finally:
            with self._drawing:
                self._is_asking = False
                if self._lines:
                    self._draw(" ")

    def _spin(self) -> None:
        while not self._is_over.wait(TICK):
            with self._drawing:
                if self._is_over.is_set():
                    return
                if self._is_asking:
                    continue
                spinner = _SPINNERS[self._screen.has_unicode]
                self._draw(spinner[self._frame % len(spinner)])
                self._frame += 1

    def _finish(self, marks: dict[bool, str]) -> None:
        """Mark the current step as finished, with the time that it took."""
        if self._lines:
            self._draw(marks[self._screen.has_unicode], f"{self._clock() - self._began:.2f}s")
            self._write("\n")

    def _draw(self, mark: str, took: str = "") -> None:
        """Redraw the last line, without its last column, after which a terminal would begin another line."""
        name, text = dressed(self._lines[-1], colour=False)
        room = (self._screen.columns or 80) - 1
        took = f"  {took}" if took and room > ROOM_FOR_TIME else ""
        shown = self._screen.cut(f"{mark} {name}{text}", room - len(took))
        begin, rest = shown[: len(mark) + 1 + len(name)], shown[len(mark) + 1 + len(name) :]
        bright_name, bright_text = dressed(self._lines[-1], colour=self._screen.has_colour, text=rest)
        head = begin.replace(name, bright_name) if name in begin else begin
        self._write(f"\r\033[K{head}{bright_text}{took}")

    def _collapse(self) -> None:
        """Replace the steps with the story as a pipe gets it, if all of them are still on the screen."""
        now = self._find()
        if (now.columns, now.lines) != (self._screen.columns, self._screen.lines) or not self._is_whole:
            return
        if not self._lines or len(self._lines) >= self._screen.lines:
            return
        story = "".join("".join(dressed(line, colour=self._screen.has_colour)) + "\n" for line in self._lines)
        self._write(f"\033[{len(self._lines)}A\r\033[J{story}")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
