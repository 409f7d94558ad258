"""A story's lines, for a person and for a program."""

from __future__ import annotations

import io
import json

import pytest

from rbee.keeper.output.lines import JsonLines, Terminal
from rbee.narration import ADD_FAILED, ADDING, DETECTED, QUEEN_ASLEEP, Event
from rbee.wire.lines import Line

# What could steer whoever shows it, and what is shown instead.
STEERING = [
    ("\x1b[2J", "\\x1b[2J"),
    ("\r(queen bee)  all is well", "\\r(queen bee)  all is well"),
    ("a\nb", "a\\nb"),
    ("\x00\x07\x7f", "\\x00\\x07\\x7f"),
    ("\x9b31m", "\\x9b31m"),
    ("\u202egnp.exe", "\\u202egnp.exe"),
    ("\u200e\u200f\u2066\u2069", "\\u200e\\u200f\\u2066\\u2069"),
    ("\u061c", "\\u061c"),
    ("\u2028\u2029", "\\u2028\\u2029"),
    ("\ud800", "\\ud800"),
]


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (ADDING, "(queen bee)  Adding local pc to hive catalog.\n"),
        (QUEEN_ASLEEP, "(bee keeper) Adding local pc to hive catalog.\n"),
        (DETECTED, "(bee hive)   Adding local pc to hive catalog.\n"),
    ],
)
def test_a_person_reads_the_speaker_in_a_column(event: Event, told: str) -> None:
    stream = io.StringIO()

    Terminal(stream).narrate(event, "Adding local pc to hive catalog.")

    assert stream.getvalue() == told


@pytest.mark.parametrize(
    ("event", "told"),
    [
        (QUEEN_ASLEEP, "\033[33m(bee keeper) \033[0mhello\n"),
        (ADDING, "\033[35m(queen bee)  \033[0mhello\n"),
        (DETECTED, "\033[36m(bee hive)   \033[0mhello\n"),
        (ADD_FAILED, "\033[35m(queen bee)  \033[0m\033[31mhello\033[0m\n"),
    ],
)
def test_on_a_terminal_the_speaker_has_a_colour_and_an_error_is_red(event: Event, told: str) -> None:
    stream = io.StringIO()

    Terminal(stream, colour=True).narrate(event, "hello")

    assert stream.getvalue() == told


@pytest.mark.parametrize(("text", "shown"), STEERING)
def test_what_could_steer_a_terminal_is_shown_escaped(text: str, shown: str) -> None:
    stream = io.StringIO()

    Terminal(stream).narrate(ADDING, text)

    assert stream.getvalue() == f"(queen bee)  {shown}\n"


def test_a_program_reads_a_json_object_a_line() -> None:
    stream = io.StringIO()
    line = Line("bee hive", "größer\n\x1b[2J", "detected", "2026-01-31T12:00:00.000Z")

    JsonLines(stream).relay(line)
    JsonLines(stream).narrate(ADDING, "Adding")

    first, second = stream.getvalue().splitlines()
    assert json.loads(first) == {
        "event": "line",
        "kind": "detected",
        "speaker": "bee hive",
        "text": "größer\n\x1b[2J",
        "at": "2026-01-31T12:00:00.000Z",
    }
    assert json.loads(second)["kind"] == "adding"
    assert "\x1b" not in first
