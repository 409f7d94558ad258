"""What standard output can show."""

from __future__ import annotations

import signal
import sys
from types import SimpleNamespace
from typing import Any

import click
import pytest

from rbee.keeper.output.screen import Screen, needs_pager, page, width
from rbee.signals import ENDING


@pytest.mark.parametrize(
    ("text", "columns"), [("abc", 3), ("größe", 5), ("蜜蜂", 4), ("e\u0301", 1), ("", 0)]
)
def test_a_text_takes_so_many_columns(text: str, columns: int) -> None:
    assert width(text) == columns


PLAIN = Screen(is_terminal=True, can_redraw=True, has_colour=False, has_unicode=True, columns=10, lines=5)


@pytest.mark.parametrize(
    ("line", "columns", "shown"),
    [
        ("0123456789", None, "0123456789"),
        ("0123456789a", None, "012345678…"),
        ("蜜蜂蜜蜂蜜蜂", None, "蜜蜂蜜蜂…"),
        ("abc", 2, "a…"),
        ("abc", 0, ""),
    ],
)
def test_a_line_is_cut_to_its_columns(line: str, columns: int | None, shown: str) -> None:
    assert PLAIN.cut(line, columns) == shown


def test_without_unicode_the_ellipsis_is_dots_as_far_as_they_fit() -> None:
    ascii_only = PLAIN._replace(has_unicode=False)

    assert ascii_only.cut("0123456789a") == "0123456..."
    assert ascii_only.cut("abcdef", 2) == ".."


def test_in_a_file_no_line_is_cut() -> None:
    assert PLAIN._replace(columns=None).cut("x" * 1000) == "x" * 1000


def test_a_text_is_dressed_where_there_are_colours() -> None:
    assert PLAIN.dress("well", "32") == "well"
    assert PLAIN._replace(has_colour=True).dress("well", "32") == "\x1b[32mwell\x1b[0m"
    assert PLAIN._replace(has_colour=True).dress("well", "") == "well"


@pytest.mark.parametrize(
    ("text", "pager", "is_terminal", "needs"),
    [
        ("line\n" * 4, "less", True, True),
        ("line\n" * 3, "less", True, False),
        ("line\n" * 4, "cat", True, False),
        ("line\n" * 4, "", True, False),
        ("line\n" * 4, "less", False, False),
    ],
    ids=["long", "short", "cat", "no pager", "a file"],
)
def test_a_pager_is_for_what_a_terminal_does_not_hold(
    monkeypatch: pytest.MonkeyPatch, text: str, pager: str, is_terminal: bool, needs: bool
) -> None:
    monkeypatch.setenv("SYSTEMD_PAGER", pager)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))

    assert needs_pager(text, PLAIN._replace(is_terminal=is_terminal)) == needs


def test_a_signal_that_ends_rbeectl_ends_it_while_a_pager_is_open_but_ctrl_c_is_the_pagers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Any] = []
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    before = signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    monkeypatch.setattr(click, "echo_via_pager", lambda *_, **__: seen.extend(map(signal.getsignal, ENDING)))
    handlers = [signal.getsignal(number) for number in ENDING]
    try:
        page("text", Screen.find())
        assert [signal.getsignal(number) for number in ENDING] == handlers
    finally:
        signal.signal(signal.SIGHUP, ignored)
        signal.signal(signal.SIGTERM, before)
    interrupt, terminate, hang_up = seen
    assert callable(interrupt)
    assert interrupt is not handlers[0]
    assert (terminate, hang_up) == (signal.SIG_DFL, signal.SIG_IGN)
