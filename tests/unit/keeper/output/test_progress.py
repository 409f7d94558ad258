"""A story on a terminal, read back from the screen of an emulated one."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable
from typing import Any

import pyte
import pytest

from rbee.keeper.output.progress import TICK, Progress
from rbee.keeper.output.screen import Screen
from rbee.wire.lines import Line

AT = "2026-01-31T12:00:00.000Z"
WIDE = Screen(is_terminal=True, can_redraw=True, has_colour=False, has_unicode=True, columns=60, lines=12)
FIRST = Line("bee keeper", "queen is asleep, waking queen.", "queen-asleep", AT)
SECOND = Line("queen bee", "Adding local pc to hive catalog.", "adding", AT)
FAILED = Line("queen bee", "adding localhost failed: no", "add-failed", AT)


class Terminal(io.StringIO):
    """A terminal of so many columns and lines, that shows what is written to it."""

    def __init__(self, screen: Screen) -> None:
        super().__init__()
        self.size = screen
        self.screen = pyte.Screen(screen.columns, screen.lines)
        self._feed = pyte.Stream(self.screen)
        self.grew: Callable[[], None] = lambda: None

    def write(self, text: str) -> int:
        # The kernel's terminal driver goes to the first column with each new line.
        self._feed.feed(text.replace("\n", "\r\n"))
        self.grew()
        return len(text)

    @property
    def shown(self) -> list[str]:
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def progress(terminal: Terminal, clock: Clock, **options: Any) -> Progress:
    return Progress(terminal, terminal.size, clock=clock, find=options.get("find", lambda: terminal.size))


def test_a_step_gets_its_tick_and_time_when_the_next_one_comes(clock: Clock) -> None:
    terminal = Terminal(WIDE)
    telling = progress(terminal, clock)

    telling.relay(FIRST)
    clock.now = 0.5
    telling.relay(SECOND)
    shown = terminal.shown
    telling.close(went_well=False)

    assert shown[0] == "✓ (bee keeper) queen is asleep, waking queen.  0.50s"
    assert shown[1].endswith("(queen bee)  Adding local pc to hive catalog.")


def test_the_story_collapses_to_itself_when_it_is_done(clock: Clock) -> None:
    terminal = Terminal(WIDE)
    terminal.write("$ rbeectl add-hive localhost\n")
    telling = progress(terminal, clock)

    telling.relay(FIRST)
    telling.relay(SECOND)
    telling.close(went_well=True)
    terminal.write("Hive localhost is Online\n")

    assert terminal.shown == [
        "$ rbeectl add-hive localhost",
        "(bee keeper) queen is asleep, waking queen.",
        "(queen bee)  Adding local pc to hive catalog.",
        "Hive localhost is Online",
    ]


def test_a_story_that_failed_keeps_its_steps_and_shows_at_which(clock: Clock) -> None:
    terminal = Terminal(WIDE)
    telling = progress(terminal, clock)

    telling.relay(FIRST)
    telling.relay(FAILED)
    clock.now = 2.0
    telling.close(went_well=False)

    assert terminal.shown == [
        "✓ (bee keeper) queen is asleep, waking queen.  0.00s",
        "✗ (queen bee)  adding localhost failed: no  2.00s",
    ]


def test_the_step_under_way_has_a_spinner_that_turns(clock: Clock) -> None:
    terminal = Terminal(WIDE)
    marks: list[str] = []
    has_turned = threading.Event()

    def grew() -> None:
        marks.append(terminal.screen.display[0][0])
        if len(set(marks)) == 4:
            has_turned.set()

    telling = progress(terminal, clock)
    terminal.grew = grew

    telling.relay(FIRST)
    assert has_turned.wait(100 * TICK)
    telling.close(went_well=True)

    assert marks[:4] == [" ", "⠋", "⠙", "⠹"]


def test_a_terminal_without_unicode_gets_ascii(clock: Clock) -> None:
    terminal = Terminal(WIDE._replace(has_unicode=False, columns=30))
    telling = progress(terminal, clock)

    telling.relay(FIRST)
    telling.close(went_well=False)

    assert terminal.shown == ["x (bee keeper) quee...  0.00s"]


@pytest.mark.parametrize("columns", [1, 2, 10, 20, 44, 45, 46, 60])
def test_no_step_reaches_the_end_of_its_line(clock: Clock, columns: int) -> None:
    terminal = Terminal(WIDE._replace(columns=columns))
    telling = progress(terminal, clock)

    telling.relay(Line("bee hive", "größe 蜜蜂 " * 9, "detected", AT))
    telling.relay(SECOND)
    assert terminal.screen.cursor.y == 1
    telling.close(went_well=False)

    assert terminal.screen.cursor.y == 2


def test_a_story_higher_than_the_screen_does_not_collapse(clock: Clock) -> None:
    terminal = Terminal(WIDE._replace(lines=3))
    telling = progress(terminal, clock)

    for _ in range(5):
        telling.relay(SECOND)
    telling.close(went_well=True)

    assert all(line.startswith("✓ ") for line in terminal.shown)


def test_after_a_resize_nothing_is_drawn_over(clock: Clock) -> None:
    terminal = Terminal(WIDE)
    telling = progress(terminal, clock, find=lambda: WIDE._replace(columns=30))

    telling.relay(FIRST)
    telling.close(went_well=True)

    assert terminal.shown == ["✓ (bee keeper) queen is asleep, waking queen.  0.00s"]


def test_after_ctrl_z_and_fg_nothing_is_drawn_over_what_the_shell_wrote(clock: Clock) -> None:
    terminal = Terminal(WIDE)
    telling = progress(terminal, clock)
    telling.relay(FIRST)
    terminal.write("\r\n[1]+  Stopped\r\n$ fg\r\n")
    telling.leave_as_it_is()

    telling.close(went_well=True)

    step = f"✓ (bee keeper) {FIRST.text}  0.00s"
    assert terminal.shown == [f"  (bee keeper) {FIRST.text}", "[1]+  Stopped", "$ fg", step]


def test_nothing_is_drawn_while_somebody_asks_and_nothing_over_the_question(clock: Clock) -> None:
    terminal = Terminal(WIDE)
    telling = progress(terminal, clock)
    telling.relay(FIRST)
    drawn = threading.Event()
    with telling.asking():
        terminal.write("Password: ")
        terminal.grew = drawn.set
        assert not drawn.wait(3 * TICK)
        terminal.grew = lambda: None
        terminal.write("\n")
        assert terminal.shown == [f"  (bee keeper) {FIRST.text}", "Password:"]
    telling.relay(SECOND)
    telling.close(went_well=True)

    step = f"✓ (bee keeper) {FIRST.text}  0.00s"
    assert terminal.shown[1:] == ["Password:", step, f"✓ (queen bee)  {SECOND.text}  0.00s"]


def test_colours_are_those_of_the_plain_story(clock: Clock) -> None:
    terminal = Terminal(WIDE._replace(has_colour=True))
    telling = progress(terminal, clock)

    telling.relay(FAILED)
    telling.close(went_well=True)

    assert terminal.screen.buffer[0][1].fg == "magenta"
    assert terminal.screen.buffer[0][15].fg == "red"


def test_what_comes_after_the_end_is_not_told(clock: Clock) -> None:
    terminal = Terminal(WIDE)
    telling = progress(terminal, clock)
    telling.relay(FIRST)
    telling.close(went_well=True)

    telling.relay(SECOND)

    assert terminal.shown == ["(bee keeper) queen is asleep, waking queen."]


def test_an_end_without_a_story_writes_nothing(clock: Clock) -> None:
    terminal = Terminal(WIDE)
    progress(terminal, clock).close(went_well=True)

    assert terminal.shown == []


@pytest.mark.parametrize("end", [KeyboardInterrupt, RuntimeError("can't start new thread")])
def test_a_spinner_that_did_not_start_leaves_the_story_its_end(
    clock: Clock, monkeypatch: pytest.MonkeyPatch, end: type[KeyboardInterrupt] | RuntimeError
) -> None:
    def start(thread: threading.Thread) -> None:
        raise end

    monkeypatch.setattr(threading.Thread, "start", start)
    terminal = Terminal(WIDE)
    telling = progress(terminal, clock)

    with contextlib.suppress(KeyboardInterrupt):
        telling.relay(FIRST)
    telling.close(went_well=False)

    assert terminal.shown == ["✗ (bee keeper) queen is asleep, waking queen.  0.00s"]
