"""Is a catalog sound?"""

from __future__ import annotations

import os
import re
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rbee.catalogfile import COMPATIBLE, MADE, VERSION, Lock
from rbee.errors import BadInput, CatalogInUse, CatalogUnusable, NotPermitted, NotRunning
from rbee.keeper.catalog.check import check_file, check_own
from rbee.queen.store.sqlite import SCHEMA
from rbee.queen.store.store import Store
from rbee.scope import SYSTEM
from tests.unit.keeper.catalog.doubles import make, make_killed, queen


def test_a_log_is_read_with_its_file_and_nothing_is_left_or_changed(path: Path, tmp_path: Path) -> None:
    backup_file = make_killed(tmp_path / "media/backup.db", "one", "two")
    before = {one.name: one.read_bytes() for one in backup_file.parent.iterdir()}

    report = check_file(backup_file, SYSTEM)

    assert (report.path, report.hives, report.version) == (str(backup_file), 3, VERSION)
    assert {one.name: one.read_bytes() for one in backup_file.parent.iterdir()} == before


def test_a_check_of_what_is_no_catalog_fails_with_78(path: Path, tmp_path: Path) -> None:
    for content in (b"", b"garbage" * 1000):
        (tmp_path / "x.db").write_bytes(content)
        with pytest.raises(CatalogUnusable, match="is damaged") as caught:
            check_file(tmp_path / "x.db", SYSTEM)
        assert caught.value.exit_code == 78


@pytest.mark.parametrize(
    ("statement", "told", "mend"),
    [
        (
            "CREATE TRIGGER loud AFTER UPDATE ON hives BEGIN SELECT RAISE(ABORT, 'no'); END",
            "has the trigger 'loud', which no queen has made", 'DROP TRIGGER "loud"',
        ),
        ("CREATE TABLE \"my own\" (x)", "has the table 'my own', which no queen", 'DROP TABLE "my own"'),
        ("CREATE VIEW v AS SELECT 1", "has the view 'v', which no queen has made", 'DROP VIEW "v"'),
        ("CREATE INDEX i ON hives (host)", "has the index 'i', which no queen has made", 'DROP INDEX "i"'),
        (
            "UPDATE hives SET id = 'a b' WHERE id = 'gpu1'",
            "has a row of hives that cannot be shown: its id, 'a b', must be made of",
            "DELETE FROM hives WHERE rowid = 2",
        ),
        (
            "UPDATE hives SET created_at_ms = -1 WHERE id = 'gpu1'",
            "has a row of hives that cannot be shown: its created_at_ms, '-1', must be",
            "DELETE FROM hives WHERE rowid = 2",
        ),
        (
            "INSERT INTO tokens VALUES ('zz', 'x', NULL, 1, 1, 1, 0)",
            "has a row of tokens that cannot be shown: its id, 'zz', must",
            "DELETE FROM tokens WHERE rowid = 1",
        ),
        (
            "INSERT INTO audit (id, at_ms, text, hive) VALUES (77, 1, 'x', 'a b')",
            "has a row of audit that cannot be shown: its hive, 'a b', must",
            "DELETE FROM audit WHERE rowid = 77",
        ),
        (
            "INSERT INTO models VALUES ('bee', 'localhost', '/m', NULL, 'ready', '', 1, '/m', 'no JSON', 1, "
            "'zz', NULL, NULL, 0, 0, 300, NULL, 1)",
            "has a row of models that cannot be shown: its sha256, 'zz', must",
            "DELETE FROM models WHERE rowid = 1",
        ),
        (
            "INSERT INTO keys VALUES ('a b', 'x', 'no JSON', 1, NULL, 0, 0, NULL)",
            "has a row of keys that cannot be shown: its name, 'a b', must",
            "DELETE FROM keys WHERE rowid = 1",
        ),
    ],
)  # fmt: skip
def test_a_check_finds_what_makes_a_list_fail_and_says_how_to_mend_it(
    path: Path, statement: str, told: str, mend: str
) -> None:
    make(path, "localhost", "gpu1")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)

    with pytest.raises(CatalogUnusable, match=re.escape(told)) as caught:
        check_file(path, SYSTEM)

    assert caught.value.exit_code == 78
    command = shlex.split(caught.value.hint or "")
    assert command[:2] == ["sudo", "sqlite3"]
    assert command[3] == mend
    with closing(sqlite3.connect(command[2], isolation_level=None)) as connection:
        connection.execute(command[3])
    assert check_file(path, SYSTEM).version == VERSION


def test_a_check_misses_what_a_queen_has_made(path: Path) -> None:
    make(path, "localhost")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TABLE tokens")

    with pytest.raises(CatalogUnusable, match="is damaged: its table tokens is missing"):
        check_file(path, SYSTEM)


def test_what_no_list_shows_keeps_no_queen_from_starting(path: Path) -> None:
    make(path, "localhost")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE VIEW v AS SELECT 1")

    Store.open(path).close()


def test_a_catalog_of_the_release_before_has_no_models_and_is_well(path: Path) -> None:
    make(path, "localhost")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for table in ("models", "peaks", "keys"):
            connection.execute(f"DROP TABLE {table}")

    assert check_file(path, SYSTEM).hives == 1


def test_what_was_learned_without_its_engine_is_dropped(path: Path) -> None:
    make(path, "localhost")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TABLE peaks")
        connection.execute("CREATE TABLE learned (model TEXT NOT NULL, peak_bytes INTEGER NOT NULL)")
    assert check_file(path, SYSTEM).hives == 1

    Store.open(path).close()

    with closing(sqlite3.connect(path)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema")}
    assert ("peaks" in tables, "learned" in tables) == (True, False)


def test_the_check_knows_all_that_each_migration_makes() -> None:
    known: set[tuple[str, str]] = set()
    with closing(sqlite3.connect(":memory:")) as connection:
        for made, file in zip((*MADE, COMPATIBLE), sorted(SCHEMA.iterdir()), strict=True):
            known |= made
            connection.executescript(file.read_text())
            there = connection.execute("SELECT type, name FROM sqlite_schema WHERE name NOT GLOB 'sqlite_*'")
            assert set(there) == known


def test_a_file_that_is_not_there_is_wrong_input(path: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        check_file(tmp_path / "none.db", SYSTEM)
    with pytest.raises(BadInput, match="is not a file"):
        check_file(tmp_path, SYSTEM)


def test_the_sleeping_queen_s_own_is_read_by_root_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_killed(path, "one")
    assert check_own(queen([], state="asleep")).hives == 2
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(NotPermitted) as caught:
        check_own(queen([], state="asleep"))
    assert caught.value.hint == "sudo rbeectl catalog check"


def test_before_her_first_wake_there_is_nothing_to_check(path: Path) -> None:
    with pytest.raises(NotRunning, match="there is no catalog yet"):
        check_own(queen([], state="off"))


def test_a_check_of_the_queen_s_file_keeps_her_from_starting_meanwhile(path: Path) -> None:
    make(path)
    with Lock.take(path), pytest.raises(CatalogInUse):
        check_own(queen([], state="asleep"))
