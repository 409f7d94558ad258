"""Copying a file of this machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rbee.fetch.errors import Anew, NotAModel, NotThere
from rbee.fetch.local import LocalFile


def test_a_file_is_read_from_where_it_is_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")
    (tmp_path / "link").symlink_to("a")
    source = LocalFile(tmp_path / "link")

    with source.open(0, None) as answer:
        assert (answer.begin, answer.total, b"".join(answer.blocks)) == (0, 10, b"0123456789")
    with source.open(4, answer.version) as rest:
        assert (rest.begin, b"".join(rest.blocks)) == (4, b"456789")
    with source.open(4, "another version") as anew:
        assert (anew.begin, b"".join(anew.blocks)) == (0, b"0123456789")


def test_a_file_that_changes_while_it_is_copied_is_copied_anew(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"0123456789")

    with LocalFile(tmp_path / "a").open(0, None) as answer:
        blocks = iter(answer.blocks)
        assert next(blocks) == b"0123456789"
        with (tmp_path / "a").open("ab") as file:
            file.write(b"more")
        with pytest.raises(Anew):
            next(blocks)


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    for path in (tmp_path / "fifo", tmp_path, Path("/dev/zero")):
        with pytest.raises(NotAModel, match="not a regular file"), LocalFile(path).open(0, None):
            pass


def test_what_is_not_there_is_named_with_what_cannot_be_seen(tmp_path: Path) -> None:
    with (
        pytest.raises(NotThere, match="a cannot be read: No such file") as refused,
        LocalFile(tmp_path / "a").open(0, None),
    ):
        pass
    assert "/home" in (refused.value.hint or "")
