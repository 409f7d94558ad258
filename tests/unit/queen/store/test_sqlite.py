"""SQLite as an engine: real files, whole, broken and foreign, and who has them."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rbee.catalogfile import APPLICATION_ID, COMPATIBLE, VERSION, Lock, way_out
from rbee.errors import CatalogFailed, CatalogInUse, CatalogUnusable
from rbee.queen.store import sqlite
from rbee.queen.store.records import Row
from rbee.queen.store.sqlite import SCHEMA
from rbee.queen.store.store import Store
from rbee.wire.codec import encode
from rbee.wire.fleet import TokenView
from tests.unit.queen.store.engines import BY, DEVICES, Journal
from tests.unit.queen.store.files import a_catalog, contents, engine_of, stored
from tests.unit.wait import until

# Its file


def test_the_file_says_whose_it_is_and_which_version(catalog: Store, path: Path) -> None:
    assert stored(path, "PRAGMA application_id") == [(int.from_bytes(b"rbee", "big"),)]
    assert stored(path, "PRAGMA user_version") == [(VERSION,)]
    assert stored(path, "PRAGMA journal_mode") == [("wal",)]


def test_an_acknowledged_write_is_on_the_disk(catalog: Store) -> None:
    assert engine_of(catalog)._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


async def test_a_catalog_that_is_closed_is_one_file_and_opens_again(path: Path) -> None:
    first = Store.open(path)
    row = await first.hives.add("localhost", "localhost", 8600)
    first.close()
    assert list(contents(path.parent)) == ["catalog.db"]

    second = Store.open(path)
    rows = await second.hives.all()
    second.close()

    assert rows == [row]


async def test_a_queen_that_was_killed_loses_nothing(catalog: Store, path: Path, tmp_path: Path) -> None:
    row = await catalog.hives.add("localhost", "localhost", 8600)
    # What a kill leaves behind: the file and its log, neither of them closed.
    shutil.copytree(path.parent, tmp_path / "after")

    again = Store.open(tmp_path / "after/catalog.db")
    rows = await again.hives.all()
    again.close()

    assert rows == [row]


# Writes and reads


async def test_a_write_that_fails_is_not_told(catalog: Store, journal: Journal) -> None:
    await catalog.hives.add("a", "a", 1, by=BY)
    journal.told.clear()
    engine_of(catalog)._connection.execute("PRAGMA query_only = 1")
    for work in (
        catalog.hives.add("b", "b", 1, by=BY),
        catalog.hives.set_online("a", DEVICES, by=BY),
        catalog.hives.set_status("a", "offline", by=BY),
        catalog.hives.remove("a", by=BY),
    ):
        with pytest.raises(CatalogFailed):
            await work

    assert journal.told == []


async def test_a_write_is_told_also_when_nobody_waits_for_it_any_more(
    catalog: Store, journal: Journal, path: Path
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        adding = asyncio.ensure_future(catalog.hives.add("a", "a", 1, by=BY))
        await asyncio.sleep(0)
        # In the writer's thread, which waits for the other process.
        await until(lambda: engine_of(catalog)._writing._work_queue.empty())
        adding.cancel()
        with pytest.raises(asyncio.CancelledError):
            await adding
        assert journal.told == []
    engine_of(catalog)._writing.shutdown()

    assert stored(path, "SELECT id FROM hives") == [("a",)]
    assert [fields for _, fields in journal.told] == [{"hive": "a", **BY}]


def spoil(path: Path, *statements: str) -> None:
    """As another program, or a queen before this one, may have left it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            connection.execute(statement)


async def test_text_that_is_no_unicode_hides_no_other_row(catalog: Store, path: Path) -> None:
    await catalog.hives.add("a", "a", None)
    await catalog.hives.set_cordon("a", "x", by=BY)

    spoil(
        path,
        "UPDATE hives SET cordoned = CAST(x'ff41' AS TEXT)",
        "UPDATE audit SET text = CAST(x'ff' AS TEXT)",
    )

    (row,) = await catalog.hives.all()
    assert row.cordoned == "\\xffA"
    assert {entry.text for entry in await catalog.audit.last(10, None)} == {"\\xff"}


async def test_a_bad_token_says_what_is_wrong_and_hides_no_other(catalog: Store, path: Path) -> None:
    for token_id in ("0123abcd", "4567abcd"):
        await catalog.tokens.add(TokenView(token_id, None, 1, 1_000, 2_000, is_revoked=False), "hash", by=BY)

    spoil(path, "UPDATE tokens SET uses_left = -3 WHERE id = '0123abcd'")

    assert [(token.id, token.problem) for token in await catalog.tokens.all()] == [
        ("0123abcd", f"uses_left must be from 0 to {2**53}, and is -3"),
        ("4567abcd", None),
    ]


async def test_writes_that_waited_are_synced_together(catalog: Store) -> None:
    statements: list[str] = []
    engine_of(catalog)._connection.set_trace_callback(statements.append)
    await asyncio.gather(*(catalog.hives.add(f"hive{n}", "a", None) for n in range(100)))
    assert statements.count("COMMIT") < 100
    assert sum(engine_of(catalog)._metrics.catalog_seconds["write"].counts) == 100


async def test_a_read_that_cannot_be_made_at_once_is_made_in_the_thread(catalog: Store) -> None:
    row = await catalog.hives.add("a", "a", None)
    engine_of(catalog)._quick.close()

    assert await catalog.hives.find("a") == row


async def test_the_event_loop_goes_on_while_the_catalog_waits_for_another_process(
    catalog: Store, path: Path
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        adding = asyncio.ensure_future(catalog.hives.add("localhost", "localhost", 8600))
        done, _ = await asyncio.wait({adding}, timeout=0.05)
        assert not done
        other.execute("COMMIT")
    assert (await asyncio.wait_for(adding, 5)).id == "localhost"


# What must not be touched


def refused(path: Path) -> CatalogUnusable:
    """The refusal, after which everything is byte for byte as it was."""
    before = contents(path.parent)
    with pytest.raises(CatalogUnusable) as caught:
        Store.open(path)
    assert contents(path.parent) == before
    assert str(path) in caught.value.message
    assert caught.value.exit_code == 78
    return caught.value


def test_a_file_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")

    error = refused(path)

    assert "another program" in error.message
    assert error.hint == way_out()


def test_a_file_of_another_program_that_also_has_hives_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE hives (id TEXT, honey REAL)")
        connection.execute("PRAGMA user_version = 1")

    assert "another program" in refused(path).message


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
async def test_a_newer_catalog_is_refused_and_left_alone(path: Path, journal_mode: str) -> None:
    await a_catalog(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"PRAGMA journal_mode = {journal_mode}")
        connection.execute(f"PRAGMA user_version = {VERSION + 1}")

    error = refused(path)

    assert re.search(rf"has version {VERSION + 1}, .* supports at most {VERSION}:", error.message)
    assert (error.hint or "").splitlines() == [
        "With the newer packages in this folder: sudo apt install --only-upgrade ./*.deb",
        *way_out().splitlines(),
    ]


@pytest.mark.parametrize("application_id", [APPLICATION_ID, 7], ids=["newer", "foreign"])
def test_a_file_with_a_log_that_was_never_closed_is_refused_and_left_alone(
    path: Path, tmp_path: Path, application_id: int
) -> None:
    with closing(sqlite3.connect(tmp_path / "alive.db", isolation_level=None)) as alive:
        alive.execute("PRAGMA journal_mode = WAL")
        alive.execute("CREATE TABLE hives (id TEXT)")
        alive.execute(f"PRAGMA application_id = {application_id}")
        alive.execute(f"PRAGMA user_version = {VERSION + 1}")
        # As a kill leaves it; the shared memory is no part of it.
        for suffix in ("", "-wal"):
            shutil.copy(tmp_path / f"alive.db{suffix}", f"{path}{suffix}")

    refused(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"\x00" * 4096,
        b"SQLite format 3\x00",
        b"SQLite format 3\x00" + b"\xff" * 8176,
        b"\x7fELF" * 5000,
    ],
    ids=["empty", "short", "zeroes", "only a head", "a broken head", "a program"],
)
def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    assert refused(path).hint == way_out()


@pytest.mark.parametrize("part", [0.05, 0.2, 0.5, 0.9, 0.99])
async def test_a_file_that_was_cut_short_is_refused_and_left_alone(path: Path, part: float) -> None:
    await a_catalog(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])

    error = refused(path)

    assert "damaged" in error.message
    assert error.hint == way_out()


@pytest.mark.parametrize("page", [1, 2, 3])
async def test_a_page_that_was_overwritten_is_found(path: Path, page: int) -> None:
    await a_catalog(path)
    content = bytearray(path.read_bytes())
    content[page * 4096 : page * 4096 + 512] = b"\xa5" * 512
    path.write_bytes(content)

    assert "damaged" in refused(path).message


def test_a_folder_in_the_file_s_place_is_told(path: Path) -> None:
    path.mkdir()

    assert "is not a regular file" in refused(path).message


def test_a_refused_file_is_not_kept_open(path: Path) -> None:
    path.write_bytes(b"garbage" * 1000)
    refused(path)

    assert str(path) not in {str(one.resolve()) for one in Path("/proc/self/fd").iterdir()}


async def test_a_log_without_its_catalog_is_never_taken_for_a_new_one_s(path: Path) -> None:
    await a_catalog(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as alive:
        alive.execute("UPDATE hives SET port = 1")
        log = Path(f"{path}-wal").read_bytes()
    path.unlink()
    Path(f"{path}-wal").write_bytes(log)

    error = refused(path)

    assert f"{path} is missing, but its log {path}-wal exists" in error.message


def test_an_unfinished_restore_is_refused_and_left_alone(path: Path) -> None:
    Path(f"{path}.restoring").write_bytes(b"whatever")

    error = refused(path)

    assert error.message == f"the restore of {path} was interrupted"
    assert error.hint == way_out()


async def test_text_that_is_no_unicode_is_damage_and_found_before_the_queen_serves(path: Path) -> None:
    await a_catalog(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE hives SET host = CAST(x'ff' AS TEXT) WHERE id = 'hive7'")

    assert "damaged" in refused(path).message


# Who has it


def test_a_second_queen_waits_and_is_then_refused_with_who_has_the_catalog(
    catalog: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.catalogfile.LOCK_TIMEOUT", 0.05)
    before = contents(path.parent)

    with pytest.raises(CatalogInUse, match="is in use") as caught:
        Store.open(path)

    assert str(path) in caught.value.message
    assert caught.value.hint == "rbeectl shutdown"
    assert contents(path.parent) == before


def test_a_queen_starts_as_soon_as_a_restore_lets_go(path: Path) -> None:
    restoring = Lock.take(path)
    timer = threading.Timer(0.1, restoring.close)
    timer.start()
    catalog = Store.open(path)
    timer.join()
    catalog.close()


@pytest.mark.parametrize("path_is_bad", [False, True])
def test_the_lock_goes_with_the_queen_whether_she_started_or_not(path: Path, path_is_bad: bool) -> None:
    if path_is_bad:
        path.write_bytes(b"garbage")
        with pytest.raises(CatalogUnusable):
            Store.open(path)
    else:
        Store.open(path).close()

    Lock.take(path).close()


async def test_what_no_queen_wrote_is_unknown_and_keeps_nobody_from_the_rest(path: Path) -> None:
    await a_catalog(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE hives SET labels = '{', devices = '{'")
        connection.commit()

    catalog = Store.open(path)
    rows = await catalog.hives.all()
    catalog.close()
    assert rows
    assert all((row.labels, row.devices) == ({}, None) for row in rows)


# The numbered schema files, and older catalogs


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
            for _kind, table in COMPATIBLE:
                assert connection.execute(f"SELECT * FROM {table}").fetchall() == []
                connection.execute(f"DROP TABLE {table}")


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
