"""What standard output can show: colour, characters, size; and the pager for longer output."""

from __future__ import annotations

import os
import signal
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Self

import click

from rbee.signals import ENDING


class Screen(NamedTuple):
    """`columns` is None if lines are not cut: in a pipe or a file.

    `can_redraw` is a terminal with control sequences, though perhaps without colour.
    """

    is_terminal: bool
    can_redraw: bool
    has_colour: bool
    has_unicode: bool
    columns: int | None
    lines: int

    @classmethod
    def find(cls, *, colour: bool = True) -> Self:
        """That of sys.stdout; with colour if the terminal can, and NO_COLOR (no-color.org) is not set."""
        is_terminal = sys.stdout.isatty()
        is_dumb = os.environ.get("TERM", "dumb") in ("", "dumb")
        columns, lines = _terminal_size() if is_terminal else (None, 0)
        return cls(
            is_terminal=is_terminal,
            can_redraw=is_terminal and not is_dumb,
            has_colour=is_terminal and colour and not is_dumb and not os.environ.get("NO_COLOR"),
            has_unicode=_speaks_unicode(),
            columns=columns,
            lines=lines,
        )

    def sized(self, columns: int, lines: int) -> Screen:
        """The same screen with another size."""
        return self._replace(columns=columns, lines=lines)

    def dress(self, text: str, code: str) -> str:
        """The text in a colour or weight, by its SGR code; unchanged on a screen without colour."""
        return f"\033[{code}m{text}\033[0m" if self.has_colour and code else text

    def cut(self, line: str, columns: int | None = None) -> str:
        """The line, or as much of it as fits and an ellipsis; for lines without colour."""
        room = self.columns if columns is None else columns
        if room is None or width(line) <= room:
            return line
        ellipsis = "…" if self.has_unicode else "..."[: max(0, room)]
        while line and width(line) + len(ellipsis) > room:
            line = line[:-1]
        return line + ellipsis if room > 0 else ""


def dot(active: str, screen: Screen) -> str:
    """systemctl's state dot: green if active, red if failed; an asterisk on a screen without Unicode."""
    code = {"active": "32", "reloading": "32", "waiting": "33", "failed": "31"}.get(active, "")
    mark = "●" if code else "○"
    return screen.dress(mark if screen.has_unicode else "*", code)


def width(text: str) -> int:
    """The columns of a text on a terminal: two for a wide character, none for a combining one."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(one) else 2 if unicodedata.east_asian_width(one) in "WF" else 1
        for one in text
    )


def _terminal_size() -> tuple[int, int]:
    import shutil  # imports three compression modules; only for a terminal

    return shutil.get_terminal_size()


def _speaks_unicode() -> bool:
    try:
        "●…█".encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def needs_pager(text: str, screen: Screen) -> bool:
    """Is a text longer than the terminal, and is there a pager for it? As systemctl decides it."""
    is_long = screen.is_terminal and text.count("\n") >= screen.lines - 1
    return is_long and _own_pager() not in ("", "cat") and sys.stdin.isatty()


def page(text: str, screen: Screen) -> None:
    """Show a text through a pager."""
    pager = _own_pager()
    if pager is not None:
        os.environ["PAGER"] = pager  # which click reads
    _set_up_less()
    with _signals_for_a_pager():
        click.echo_via_pager(text + "\n", color=screen.has_colour)


@contextmanager
def pager(screen: Screen, *, is_wanted: bool) -> Iterator[int]:
    """Yield the descriptor of a pager, or of standard output; wait at the end until the pager has ended.

    A pager is for a terminal only, as journalctl decides it.
    """
    import shlex  # these three only for a pager
    import shutil
    import subprocess

    own = _own_pager()
    is_possible = screen.is_terminal and sys.stdin.isatty() and own not in ("", "cat")
    words = shlex.split(own or "less")
    if not (is_wanted and is_possible and words and shutil.which(words[0])):
        yield 1
        return
    _set_up_less()
    with _signals_for_a_pager(), subprocess.Popen(words, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        yield process.stdin.fileno()


def _set_up_less() -> None:
    # systemd's default: quit if it fits, keep colours, chop lines, do not clear the screen.
    os.environ["LESS"] = os.environ.get("SYSTEMD_LESS", "FRSXMK")


@contextmanager
def _signals_for_a_pager() -> Iterator[None]:
    # Ctrl-C is for the pager, such as to end a search. With SIG_IGN the pager would not get it, either.
    before = {signal.SIGINT: signal.signal(signal.SIGINT, lambda _number, _frame: None)}
    # After any other signal click would go on; rbeectl ends instead, as there is nothing to clean up.
    for number in ENDING:
        if number != signal.SIGINT and signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, signal.SIG_DFL)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _own_pager() -> str | None:
    """The pager of $SYSTEMD_PAGER or $PAGER; 'cat' or '' means no pager, None means less(1)."""
    return os.environ.get("SYSTEMD_PAGER", os.environ.get("PAGER"))
