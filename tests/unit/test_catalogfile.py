"""What a person types when a catalog cannot be used; the checks themselves are tried with the queen's."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rbee.catalogfile import APPLICATION_ID, check, way_out
from rbee.errors import CatalogUnusable
from rbee.scope import user_scope


def test_the_way_out_is_a_backup_or_none_and_what_is_open_is_closed_first() -> None:
    restore = "sudo rbeectl catalog restore FILE\nsudo rbeectl catalog restore --empty"

    assert way_out() == restore
    assert way_out(is_open=True) == f"rbeectl shutdown\n{restore}"
    assert way_out(user_scope()).splitlines()[0] == "rbeectl --user catalog restore FILE"


def test_what_is_mended_by_hand_in_a_user_s_catalog_takes_no_root(tmp_path: Path) -> None:
    path, user = tmp_path / "catalog.db", user_scope()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(f"PRAGMA application_id = {APPLICATION_ID}; CREATE VIEW theirs AS SELECT 1")

    with pytest.raises(CatalogUnusable) as caught:
        check(path, reads_rows=True, way_out=way_out(user, is_open=True), scope=user)

    first = (caught.value.hint or "").splitlines()[0]
    assert first == f"rbeectl --user shutdown; sqlite3 {path} 'DROP VIEW \"theirs\"'"
