"""rbeectl top: the live CPU, memory and GPU usage of all hives."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from rbee.errors import NotRunning, RbeeError
from rbee.keeper.hives import Hives
from rbee.keeper.options import in_session, looking, span
from rbee.keeper.output.screen import Screen
from rbee.keeper.output.tables import now_ms
from rbee.keeper.output.top import SGR, Moment, Tone, frame
from rbee.keeper.queen.queen import Queen
from rbee.keeper.session import Session
from rbee.scope import Scope
from rbee.wire.codec import encode

if TYPE_CHECKING:
    import curses


@click.command(short_help="Show live CPU, memory and GPU usage.")
@click.option(
    "-d",
    "--delay",
    callback=span,
    default="2s",
    metavar="SPAN",
    help="Time between updates; 2s if not given.",
)
@click.option("-n", "--iterations", type=click.IntRange(1), metavar="N", help="End after N updates.")
@click.option("-m", "--memory", is_flag=True, help="Show who holds the memory, too.")
@looking
@in_session
def top(session: Session, delay: float, iterations: int | None, memory: bool) -> None:
    """Show the live load, memory and GPU usage of all hives.

    On a terminal the screen is updated until 'q' or Ctrl-C; elsewhere one update is printed after another.
    """
    numbers: Iterable[int] = itertools.count() if iterations is None else range(iterations)
    with session.queen() as queen:
        Hives(queen).all()  # NotRunning, if the queen is not awake at the beginning
        look = partial(_look, queen, has_memory=memory)
        if session.as_json:
            _one_after_the_other(look, numbers, delay, lambda moment: session.tell_json(_as_json(moment)))
        elif session.screen.can_redraw and sys.stdin.isatty() and not session.is_quiet:
            _on_screen(session.screen, look, numbers, delay, session.scope)
        else:
            _one_after_the_other(
                look, numbers, delay, lambda moment: session.say(_text(moment, session.screen))
            )


def _look(queen: Queen, *, has_memory: bool) -> Moment:
    """The hives and their samples now; no request is sent to a queen that is not awake."""
    clock = f"{datetime.now().astimezone():%H:%M:%S}"
    try:
        hives = Hives(queen)
        every = hives.all()
        memories = hives.memories(every) if has_memory else {}
        return Moment(clock, now_ms(), "awake", every, hives.samples(every), queen.work.scope, memories)
    except NotRunning:
        return Moment(clock, now_ms(), queen.state(), None, {}, queen.work.scope)


def _one_after_the_other(
    look: Callable[[], Moment], numbers: Iterable[int], delay: float, show: Callable[[Moment], None]
) -> None:
    for number in numbers:
        if number:
            time.sleep(delay)
        show(look())
        sys.stdout.flush()


def _as_json(moment: Moment) -> dict[str, Any]:
    hives = None
    if moment.hives is not None:
        samples = {hive_id: encode(sample) for hive_id, sample in moment.samples.items()}
        memories = {hive_id: {"memory": encode(memory)} for hive_id, memory in moment.memories.items()}
        hives = [
            {**encode(hive), "sample": samples.get(hive.id), **memories.get(hive.id, {})}
            for hive in moment.hives
        ]
    return {"at_ms": moment.now_ms, "queen": moment.queen, "hives": hives}


def _text(moment: Moment, screen: Screen) -> str:
    rows = frame(moment, screen)
    return "\n".join("".join(screen.dress(text, SGR[tone]) for text, tone in row) for row in rows) + "\n"


def _on_screen(
    screen: Screen, look: Callable[[], Moment], numbers: Iterable[int], delay: float, scope: Scope
) -> None:
    import curses

    try:
        curses.wrapper(lambda window: _draw(window, screen, look, numbers, delay))
    except KeyboardInterrupt:
        pass  # as 'q'
    except curses.error as error:
        raise RbeeError(
            f"this terminal cannot be drawn on: {error}", hint=scope.rbeectl("top | cat")
        ) from error
    finally:
        # wrapper() does not restore a terminal whose initscr() was interrupted.
        with suppress(curses.error):
            if not curses.isendwin():
                curses.endwin()


def _draw(
    window: curses.window, screen: Screen, look: Callable[[], Moment], numbers: Iterable[int], delay: float
) -> None:
    import curses

    attributes = _attributes(screen)
    with suppress(curses.error):  # a terminal that cannot hide the cursor; curses itself restores it
        curses.curs_set(0)
    for _ in numbers:
        moment = look()
        ends = time.monotonic() + delay
        while True:
            _put(window, frame(moment, _sized(screen, window)), attributes)
            left = ends - time.monotonic()
            window.timeout(max(0, round(left * 1000)))
            key = window.getch()
            if key in (ord("q"), ord("Q")):
                return
            if key != curses.KEY_RESIZE and (key == -1 or left <= 0):
                break


def _attributes(screen: Screen) -> dict[Tone, int]:
    """curses' attributes for each tone."""
    import curses

    attributes: dict[Tone, int] = {
        "plain": 0,
        "bold": curses.A_BOLD,
        "good": 0,
        "warning": 0,
        "bad": curses.A_BOLD,
    }
    if screen.has_colour and curses.has_colors():
        curses.use_default_colors()
        colours: tuple[tuple[Tone, int], ...] = (
            ("good", curses.COLOR_GREEN), ("warning", curses.COLOR_YELLOW), ("bad", curses.COLOR_RED),
        )  # fmt: skip
        for number, (tone, colour) in enumerate(colours, start=1):
            curses.init_pair(number, colour, -1)
            attributes[tone] = curses.color_pair(number)
    return attributes


def _sized(screen: Screen, window: curses.window) -> Screen:
    lines, columns = window.getmaxyx()
    # Without the last column: writing to the last one of the last line is an error for curses.
    return screen.sized(columns - 1, lines)


def _put(window: curses.window, rows: list[list[tuple[str, Tone]]], attributes: dict[Tone, int]) -> None:
    import curses

    window.erase()
    for number, row in enumerate(rows):
        try:
            window.move(number, 0)
            for text, tone in row:
                window.addstr(text, attributes[tone])
        except curses.error:
            break  # the terminal has become smaller; the next frame has its size
    window.refresh()
