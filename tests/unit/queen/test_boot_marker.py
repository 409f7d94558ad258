"""The word for the next boot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rbee.queen.boot_marker import BootMarker


def test_it_is_there_as_long_as_a_hive_is_wanted(tmp_path: Path) -> None:
    path = tmp_path / "wanted"
    mark = BootMarker(path)
    for is_wanted in (True, True, False, False, True):
        mark.set(is_wanted)
        assert path.exists() == is_wanted


@pytest.mark.parametrize("is_wanted", [True, False])
def test_a_new_queen_puts_right_what_she_finds(tmp_path: Path, is_wanted: bool) -> None:
    path = tmp_path / "wanted"
    if not is_wanted:
        path.touch()
    BootMarker(path).set(is_wanted)
    assert path.exists() == is_wanted


def test_it_has_reached_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.readlink(f"/proc/self/fd/{fd}")))
    mark = BootMarker(tmp_path / "wanted")
    mark.set(True)
    mark.set(True)
    mark.set(False)
    assert synced == [str(tmp_path)] * 2


def test_what_failed_is_tried_again(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    mark = BootMarker(directory / "wanted")
    with pytest.raises(FileNotFoundError):
        mark.set(True)
    directory.mkdir()
    mark.set(True)
    assert (directory / "wanted").exists()
