"""The end of the journal, as far as whoever asks may read it."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.systemd.journal import journal_tail


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
