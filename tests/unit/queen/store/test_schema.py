"""The numbered schema files: each brings a catalog of the version before to its own."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rbee.catalogfile import APPLICATION_ID, VERSION
from rbee.errors import CatalogUnusable
from rbee.queen.store import sqlite
from rbee.queen.store.records import Row
from rbee.queen.store.sqlite import SCHEMA
from rbee.queen.store.store import Store
from rbee.wire.codec import encode
from tests.unit.queen.store.engines import DEVICES
from tests.unit.queen.store.files import contents, stored

FILES = [file.read_text() for file in sorted(SCHEMA.glob("[0-9]*.sql"))]


def use(monkeypatch: pytest.MonkeyPatch, folder: Path, *files: str) -> None:
    """Have these numbered schema files instead of those that there are."""
    folder.mkdir()
    shutil.copy(SCHEMA / "compatible.sql", folder)
    for number, text in enumerate(files, start=1):
        (folder / f"{number:04}.sql").write_text(text)
    monkeypatch.setattr(sqlite, "SCHEMA", folder)


def test_the_version_that_the_keeper_knows_is_the_number_of_the_last_file() -> None:
    numbered = [f"{n:04}.sql" for n in range(1, VERSION + 1)]
    assert [file.name for file in sorted(SCHEMA.iterdir())] == [*numbered, "compatible.sql"]


def test_what_the_release_before_does_not_know_is_made_again_where_it_is_missing(path: Path) -> None:
    for _ in range(2):
        Store.open(path).close()
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT * FROM former_credentials").fetchall() == []
            connection.execute("DROP TABLE former_credentials")


def test_the_table_has_the_seed_s_columns_and_whether_the_hive_is_wanted(catalog: Store, path: Path) -> None:
    columns = stored(path, "SELECT name, type, \"notnull\", pk FROM pragma_table_info('hives')")

    assert columns == [
        ("id", "TEXT", 1, 1),
        ("host", "TEXT", 1, 0),
        ("port", "INTEGER", 1, 0),
        ("status", "TEXT", 1, 0),
        ("devices", "TEXT", 0, 0),
        ("created_at_ms", "INTEGER", 1, 0),
        ("updated_at_ms", "INTEGER", 1, 0),
        ("wanted", "INTEGER", 1, 0),
        # Of hives on other machines.
        ("machine", "TEXT", 0, 0),
        ("credential", "TEXT", 0, 0),
        ("address", "TEXT", 0, 0),
        ("labels", "TEXT", 1, 0),
        ("cordoned", "TEXT", 0, 0),
    ]


# Older catalogs


V1 = """
    CREATE TABLE hives (
        id TEXT PRIMARY KEY,
        host TEXT NOT NULL,
        port INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
        status TEXT NOT NULL CHECK (status IN ('pending', 'online', 'offline')),
        devices TEXT,
        created_at_ms INTEGER NOT NULL,
        updated_at_ms INTEGER NOT NULL,
        wanted INTEGER NOT NULL CHECK (wanted IN (0, 1))
    ) STRICT;
    PRAGMA application_id = 1919051109;
    PRAGMA user_version = 1;
    """
"""As the releases before 0.4.0 made it. Not by our own file, which somebody may change."""

EVERYTHING = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"


@pytest.fixture
def v1(path: Path) -> list[tuple[Any, ...]]:
    """A catalog as the release before left it, with its rows."""
    before = [
        ("gone", "gone", 8601, "offline", None, 3, 4, 0),
        ("localhost", "localhost", 8600, "online", json.dumps(encode(DEVICES)), 1, 2, 1),
        *((f"pending{n}", "localhost", 8600, "pending", None, 5, 6, n % 2) for n in range(200)),
    ]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(V1)
        connection.executemany("INSERT INTO hives VALUES (?, ?, ?, ?, ?, ?, ?, ?)", before)
    assert len(stored(path)) == len(before)
    return stored(path)


async def test_an_older_catalog_is_brought_up_with_its_rows_and_a_copy_of_it_is_kept(
    path: Path, v1: list[tuple[Any, ...]]
) -> None:
    told: list[bool] = []
    catalog = Store.open(path, wanted=told.append)
    rows = await catalog.hives.all()
    catalog.close()

    assert rows[:2] == [
        Row("gone", "gone", 8601, "offline", None, 3, 4, False),
        Row("localhost", "localhost", 8600, "online", DEVICES, 1, 2, True),
    ]
    assert not any(row.is_remote for row in rows)
    assert told == [True]
    assert stored(path, "PRAGMA user_version") == [(VERSION,)]
    assert [row[:8] for row in stored(path)] == v1
    assert {row[8:] for row in stored(path)} == {(None, None, None, "{}", None)}
    # For who goes back to the release before.
    copy = path.with_name("catalog-1.db")
    assert stored(copy, "PRAGMA user_version") == [(1,)]
    assert stored(copy, "PRAGMA application_id") == stored(path, "PRAGMA application_id")
    assert stored(copy) == v1
    assert sorted(contents(path.parent)) == ["catalog-1.db", "catalog.db"]


def test_an_older_catalog_is_the_same_as_a_new_one_once_it_is_brought_up(
    path: Path, v1: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    new = tmp_path / "new/catalog.db"
    for one in (path, new):
        Store.open(one).close()

    for pragma in ("application_id", "user_version", "journal_mode"):
        assert stored(path, f"PRAGMA {pragma}") == stored(new, f"PRAGMA {pragma}")
    columns = "SELECT m.name, i.* FROM sqlite_schema m, pragma_table_info(m.name) i ORDER BY m.name, i.cid"
    for question in ("SELECT type, name, tbl_name FROM sqlite_schema ORDER BY name", columns):
        assert stored(path, question) == stored(new, question)


async def test_an_older_catalog_of_a_queen_that_was_killed_is_brought_up_with_what_is_in_its_log(
    path: Path, v1: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as alive:
        alive.execute("UPDATE hives SET status = 'offline' WHERE id = 'localhost'")
        shutil.copytree(path.parent, tmp_path / "after")
    assert (tmp_path / "after/catalog.db-wal").stat().st_size

    catalog = Store.open(tmp_path / "after/catalog.db")
    row = await catalog.hives.find("localhost")
    catalog.close()

    assert row is not None
    assert (row.status, row.devices) == ("offline", DEVICES)
    assert stored(tmp_path / "after/catalog-1.db") == stored(path)


FAILING = "ALTER TABLE nothing ADD COLUMN x TEXT"


STATEMENTS = FILES[1].split(";\n")


@pytest.mark.parametrize("number", range(len(STATEMENTS)))
async def test_a_file_that_fails_in_its_middle_leaves_the_catalog_at_its_version(
    path: Path, v1: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int
) -> None:
    before = stored(path, EVERYTHING)
    broken = ";\n".join([*STATEMENTS[:number], FAILING, *STATEMENTS[number:]])
    with monkeypatch.context() as now:
        use(now, tmp_path / "schema", FILES[0], broken)
        with pytest.raises(CatalogUnusable):
            Store.open(path)

    assert stored(path, "PRAGMA user_version") == [(1,)]
    assert stored(path, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert stored(path) == v1
    assert stored(path, EVERYTHING) == before
    assert stored(path, "PRAGMA integrity_check") == [("ok",)]
    # Once that is mended, it goes on.
    catalog = Store.open(path)
    assert len(await catalog.hives.all()) == len(v1)
    catalog.close()


def test_a_later_file_that_fails_leaves_what_the_one_before_it_made(
    path: Path, v1: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    use(monkeypatch, tmp_path / "schema", *FILES, f"ALTER TABLE hives ADD COLUMN colour TEXT;\n{FAILING};")

    with pytest.raises(CatalogUnusable):
        Store.open(path)

    assert stored(path, "PRAGMA user_version") == [(VERSION,)]
    assert [row[:8] for row in stored(path)] == v1
    assert not [
        name for (name,) in stored(path, "SELECT name FROM pragma_table_info('hives')") if name == "colour"
    ]


def test_a_copy_that_cannot_be_kept_leaves_the_catalog_as_it_was(
    path: Path, v1: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as now:
        now.setattr(os, "fsync", full)
        with pytest.raises(CatalogUnusable):
            Store.open(path)

    assert stored(path, "PRAGMA user_version") == [(1,)]
    assert list(contents(path.parent)) == ["catalog.db"]
