"""The end of the journal, as far as whoever asks may read it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rbee.systemd.journal import Entry, Tail, journal_tail, tail_of


@pytest.mark.parametrize(
    ("script", "lines"),
    [
        ('echo "$@"', ["--quiet --no-pager --lines=2 --unit=x"]),
        ("printf 'one\\ntwo\\n\\377'", ["one", "two", "\ufffd"]),
        ("echo one; exit 1", []),
    ],
)
def test_the_last_lines_are_those_that_journalctl_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, lines: list[str]
) -> None:
    program = tmp_path / "journalctl"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    assert journal_tail("--unit=x", lines=2) == lines


def test_without_a_journal_there_are_no_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    assert journal_tail("--unit=x") == []


def shown(message: object, **fields: str) -> str:
    """An entry as `journalctl --output=json` shows it."""
    return json.dumps({"__CURSOR": "s=1", "__REALTIME_TIMESTAMP": "7", "MESSAGE": message, **fields})


@pytest.mark.parametrize(
    ("line", "entry"),
    [
        (shown("one", PRIORITY="4", _SYSTEMD_INVOCATION_ID="a1"), Entry("one", 4, 7, "a1")),
        (shown("a\u2028b"), Entry("a\u2028b", 6, 7, "")),
        (shown([255, 32, 104, 105]), Entry("\ufffd hi", 6, 7, "")),
    ],
)
def test_an_entry_has_its_text_whatever_bytes_were_printed(line: str, entry: Entry) -> None:
    assert tail_of([line], 2) == Tail((entry,))


@pytest.mark.parametrize(
    "line",
    ["", "{", "[]", "7", "{}", shown(None), shown([256]), shown("x", PRIORITY="high"), shown(["x"])],
)
def test_what_is_not_an_entry_is_left_out(line: str) -> None:
    assert tail_of([shown("x"), line], 3) == Tail((Entry("x", 6, 7, ""),))


def test_entries_may_be_cut_if_there_are_as_many_as_there_may_be_or_the_first_one_is_cut() -> None:
    one = Entry("x", 6, 7, "")

    assert tail_of([], 2) == Tail()
    assert tail_of([shown("x")] * 2, 2) == Tail((one, one), is_cut=True)
    assert tail_of([shown("x")[9:], shown("x")], 3) == Tail((one,), is_cut=True)
