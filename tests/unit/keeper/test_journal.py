"""Where the journal has what rbee told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rbee.keeper.journal import is_readable


@pytest.mark.parametrize("folder", ["var/log/journal", "run/log/journal"])
def test_a_journal_is_readable_by_who_may_open_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    assert is_readable(tmp_path)  # journalctl says that there is none

    file = tmp_path / folder / "0123" / "system.journal"
    file.parent.mkdir(parents=True)
    file.touch()
    assert is_readable(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: path != file)
    assert not is_readable(tmp_path)
