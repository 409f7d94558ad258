"""Opening what a person names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rbee.errors import BadInput, RbeeError
from rbee.modelfile.files import opened, read_bounded


def test_a_file_is_opened_with_its_size_also_behind_a_link(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "b").symlink_to("a")

    with opened(tmp_path / "b") as (file, size):
        assert (file.read(), size) == (b"12345", 5)


def test_what_is_no_regular_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    for path in (tmp_path / "fifo", tmp_path, Path("/dev/null")):
        with pytest.raises(BadInput, match=f"{path} is not a regular file"), opened(path):
            pass


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RbeeError, match="a cannot be read: No such file"), opened(tmp_path / "a"):
        pass
    with pytest.raises(BadInput, match="NUL"), opened(Path("a\0b")):
        pass


def test_a_file_is_read_to_its_bound(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")

    assert read_bounded(tmp_path / "a", 5) == b"12345"
    with pytest.raises(BadInput, match="more than 4 bytes"):
        read_bounded(tmp_path / "a", 4)
