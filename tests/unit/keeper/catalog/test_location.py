"""Where the queen's catalog is."""

from __future__ import annotations

from pathlib import Path

from rbee.keeper.catalog.location import is_the_queens
from rbee.scope import SYSTEM
from tests.unit.keeper.catalog.doubles import make


def test_the_queen_s_own_file_is_known_by_any_name(path: Path, tmp_path: Path) -> None:
    make(path)
    (tmp_path / "link").symlink_to(path)

    assert is_the_queens(str(tmp_path / "link"), SYSTEM)
    assert not is_the_queens(str(tmp_path / "other"), SYSTEM)
