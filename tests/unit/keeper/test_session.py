"""How what was asked for is told: quiet, with colour or without, in a pager."""

from __future__ import annotations

import io
import os
import signal
import sys

import pytest

from rbee.keeper.output import tables
from rbee.keeper.output.progress import Progress
from rbee.keeper.output.screen import Screen, page
from rbee.keeper.session import Session


class Tty:
    """Standard output, if it were a terminal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True, raising=False)


@pytest.mark.parametrize(
    ("environ", "arguments", "has_colour"),
    [
        ({"TERM": "xterm"}, [], True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, [], False),
        ({"TERM": "xterm", "NO_COLOR": ""}, [], True),
        ({"TERM": "dumb"}, [], False),
        ({}, [], False),
        ({"TERM": "xterm"}, ["--no-color"], False),
    ],
)
def test_colour_is_for_a_terminal_that_can_and_a_person_who_wants_it(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], arguments: list[str], has_colour: bool
) -> None:
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    Tty(monkeypatch)

    assert Session(has_colour="--no-color" not in arguments).screen.has_colour == has_colour


@pytest.mark.parametrize(("encoding", "ellipsis"), [("utf-8", "…"), ("ascii", "...")])
def test_a_line_is_cut_to_the_terminal(monkeypatch: pytest.MonkeyPatch, encoding: str, ellipsis: str) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal(io.BytesIO(), encoding=encoding))
    monkeypatch.setenv("COLUMNS", "40")
    rows = [("a", "b" * 100)]

    narrow = tables.table(("A", "B"), rows, Session().frame).splitlines()
    full = tables.table(("A", "B"), rows, Session(is_full=True).frame).splitlines()

    assert [len(line) for line in narrow] == [4, 40]
    assert narrow[1].endswith("b" + ellipsis)
    assert len(full[1]) == 103


def test_a_page_longer_than_the_terminal_goes_through_the_pager(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr("click.echo_via_pager", lambda text, color: shown.append(text))
    monkeypatch.setattr(sys, "stdin", sys.stdout)
    Tty(monkeypatch)
    for name in ("PAGER", "SYSTEMD_PAGER", "LESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LINES", "10")

    Session().show("line\n" * 8)
    assert shown == []
    Session(has_pager=False).show("line\n" * 20)
    assert shown == []
    monkeypatch.setenv("SYSTEMD_PAGER", "cat")
    Session().show("line\n" * 20)
    assert shown == []
    monkeypatch.setenv("SYSTEMD_PAGER", "more")
    Session().show("line\n" * 20)
    assert len(shown) == 1
    assert (os.environ["PAGER"], os.environ["LESS"]) == ("more", "FRSXMK")


def test_ctrl_c_is_the_pager_s(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("click.echo_via_pager", lambda text, color: signal.raise_signal(signal.SIGINT))
    screen = Screen(
        is_terminal=True, can_redraw=True, has_colour=True, has_unicode=True, columns=80, lines=24
    )

    page("line", screen)

    assert signal.getsignal(signal.SIGINT) == before


def test_a_story_on_a_terminal_learns_of_ctrl_z_and_fg(monkeypatch: pytest.MonkeyPatch) -> None:
    Tty(monkeypatch)
    monkeypatch.setenv("TERM", "xterm")
    before = signal.getsignal(signal.SIGCONT)
    try:
        teller = Session().teller()
        assert isinstance(teller, Progress)
        assert teller._is_whole
        signal.raise_signal(signal.SIGCONT)
        assert not teller._is_whole
    finally:
        signal.signal(signal.SIGCONT, before)
