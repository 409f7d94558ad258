"""One run of rbeectl: the options that all verbs share, and how output is printed."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import click

from rbee.client.queen import QueenClient
from rbee.keeper.output.lines import JsonLines, Terminal
from rbee.keeper.output.screen import Screen, needs_pager, page
from rbee.keeper.output.tables import Frame
from rbee.keeper.queen.queen import Queen
from rbee.keeper.work import Deadline, Work
from rbee.narration import Teller
from rbee.scope import SYSTEM, Scope
from rbee.systemd.bus import Bus
from rbee.systemd.errors import PERSON_TIMEOUT
from rbee.text import printable, printable_lines

Row = TypeVar("Row")


@dataclass
class Session:
    """`timeout` in seconds, for the whole verb; the options set the rest (rbee.keeper.options)."""

    scope: Scope = SYSTEM
    as_json: bool = False
    is_quiet: bool = False
    has_colour: bool = True
    has_pager: bool = True
    has_legend: bool = True
    is_full: bool = False
    is_debugging: bool = False
    waits: bool = True
    timeout: float | None = None

    @cached_property
    def screen(self) -> Screen:
        """What standard output can show."""
        return Screen.find(colour=self.has_colour)

    @property
    def frame(self) -> Frame:
        """How tables are drawn."""
        return Frame(has_header=self.has_legend, screen=None if self.is_full else self.screen)

    @contextmanager
    def work(self) -> Iterator[Work]:
        """What a verb needs while it runs: a bus, a narrator and a deadline."""
        left = Deadline(self.timeout).left
        teller = self.teller()
        with Bus(self.scope, timeout=left(PERSON_TIMEOUT)) as bus:
            try:
                yield Work(bus, teller, left)
            except BaseException:
                teller.close(went_well=False)
                raise
            teller.close(went_well=True)

    @contextmanager
    def queen(self) -> Iterator[Queen]:
        """As work(), with the queen of this machine; this alone sends and wakes nothing."""
        with self.work() as work:
            scope = self.scope
            yield Queen(work, QueenClient(scope.queen_socket, left=work.left, scope=scope))

    def teller(self) -> Teller:
        """The narrator that prints a story line by line, as the options ask for it."""
        if self.as_json:
            return JsonLines(sys.stdout)
        if self.is_quiet:
            return Teller()
        if self.screen.can_redraw:
            from rbee.keeper.output.progress import Progress  # for a terminal alone

            progress = Progress(sys.stdout, self.screen)
            # After Ctrl-Z and fg there are lines of the shell's between those of the story.
            signal.signal(signal.SIGCONT, lambda _number, _frame: progress.leave_as_it_is())
            return progress
        return Terminal(sys.stdout, colour=self.screen.has_colour)

    def say(self, text: str) -> None:
        """Print for a person, unless --quiet is given."""
        if not self.is_quiet:
            click.echo(self._gated(text))

    def warn(self, text: str, hint: str) -> None:
        """Print a warning and its cure on stderr, with --quiet and --json too."""
        click.echo(f"rbeectl: {printable(text)}", err=True)
        for line in hint.splitlines():
            click.echo(f"  try: {printable(line)}", err=True)

    def show(self, draw: str | Callable[[Frame], str]) -> None:
        """As say(), through a pager if longer than the screen; `draw` is a text, or draws one in a frame.

        A pager scrolls to the right, and gets lines that are not cut.
        """
        if self.is_quiet:
            return
        text = self._gated(draw if isinstance(draw, str) else draw(self.frame))
        if not self.has_pager or not needs_pager(text, self.screen):
            click.echo(text)
            return
        if not isinstance(draw, str):
            text = self._gated(draw(self.frame._replace(scrolls=True)))
        page(text, self.screen)

    def show_pages(
        self, pages: Iterable[Sequence[Row]], begin: Callable[[Frame], Callable[[Sequence[Row]], str]]
    ) -> None:
        """As show(), but each page as it arrives; on a terminal all at once, as they may go to a pager.

        `begin` takes a frame and returns a function, which draws one page after the other.
        """
        if self.screen.is_terminal:
            every = [row for rows in pages for row in rows]
            self.show(lambda frame: begin(frame)(every))
            return
        draw = begin(self.frame)
        for rows in pages:
            self.say(draw(rows))

    def _gated(self, text: str) -> str:
        """The text, with control characters from outside escaped, which would control the terminal."""
        return printable_lines(text, has_colour=self.screen.has_colour)

    def tell_json(self, value: Any) -> None:
        """Print a value as one line of JSON."""
        click.echo(json.dumps(value))
