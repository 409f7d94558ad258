"""rbeectl catalog: copies that are whole or not there, restores that no crash can tear."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest

import rbee.keeper.catalog.location
from rbee.catalogfile import MADE, VERSION, Lock
from rbee.contracts import QueenRoutes, Route
from rbee.errors import (
    BadInput,
    CatalogInUse,
    CatalogUnusable,
    NotPermitted,
    NotRunning,
    RbeeError,
    Unreachable,
)
from rbee.keeper.catalog.backup import backup
from rbee.keeper.catalog.check import check_file, check_own
from rbee.keeper.catalog.location import is_the_queens
from rbee.keeper.catalog.restore import restore
from rbee.queen.store.sqlite import SCHEMA
from rbee.queen.store.store import Store

REPOSITORY = Path(__file__).parents[3]

Result = TypeVar("Result")


def run(work: Awaitable[Result]) -> Result:
    async def scenario() -> Result:
        return await work

    return asyncio.run(scenario())


def make(path: Path, *names: str) -> Path:
    """A catalog of a queen who has stopped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    catalog = Store.open(path)
    for name in names:
        run(catalog.hives.add(name, name, 8600))
    catalog.close()
    return path


def make_killed(path: Path, *names: str) -> Path:
    """A catalog of a queen who was killed: what she wrote last is in its log alone."""
    aside = path.parent.parent / "aside"
    make(aside / path.name, "before")
    catalog = Store.open(aside / path.name)
    for name in names:
        run(catalog.hives.add(name, name, 8600))
    path.parent.mkdir(exist_ok=True)
    for suffix in ("", "-wal"):
        shutil.copy(f"{aside / path.name}{suffix}", f"{path}{suffix}")
    catalog.close()
    shutil.rmtree(aside)
    assert Path(f"{path}-wal").stat().st_size
    return path


def names_in(path: Path) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        return [name for (name,) in connection.execute("SELECT id FROM hives ORDER BY id")]


def listing(folder: Path) -> set[str]:
    return {one.name for one in folder.iterdir()}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the queen's catalog is; root restores, whoever runs the tests."""
    path = tmp_path / "state/catalog.db"
    monkeypatch.setattr(rbee.keeper.catalog.location, "own_path", lambda: path)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return path


class Queen:
    """Answers with these parts of a file, and then perhaps with an error."""

    def __init__(self, parts: list[bytes], error: Exception | None = None, *, state: str = "awake") -> None:
        self._parts = parts
        self._state = state
        self._error = error

    def present_state(self) -> str:
        return self._state

    def fetch(self, route: Route) -> Iterator[bytes]:
        assert route is QueenRoutes.CATALOG
        yield from self._parts
        if self._error is not None:
            raise self._error


def queen(parts: list[bytes], error: Exception | None = None, *, state: str = "awake") -> Any:
    return Queen(parts, error, state=state)


# backup


def test_a_backup_is_checked_private_and_the_only_new_file(path: Path, tmp_path: Path) -> None:
    content = make(path, "localhost").read_bytes()
    (tmp_path / "out").mkdir()

    report = backup(queen([content[:5000], content[5000:]]), "awake", str(tmp_path / "out/copy.db"))

    assert report is not None
    assert (report.path, report.hives) == (str(tmp_path / "out/copy.db"), 1)
    assert listing(tmp_path / "out") == {"copy.db"}
    assert (tmp_path / "out/copy.db").read_bytes() == content
    assert (tmp_path / "out/copy.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("is_forced", [False, True])
def test_a_backup_that_breaks_off_leaves_what_was_there(path: Path, tmp_path: Path, is_forced: bool) -> None:
    content = make(path, "localhost").read_bytes()
    out = tmp_path / "out"
    out.mkdir()
    if is_forced:
        (out / "copy.db").write_bytes(b"the one before")
    broken = queen([content[:5000]], Unreachable("the queen ended her answer before its end"))

    with pytest.raises(Unreachable):
        backup(broken, "awake", str(out / "copy.db"), is_forced=is_forced)

    assert listing(out) == ({"copy.db"} if is_forced else set())


def test_a_backup_that_arrives_damaged_is_not_kept(path: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()

    with pytest.raises(CatalogUnusable, match="is damaged"):
        backup(queen([b"something else entirely" * 500]), "awake", str(tmp_path / "out/copy.db"))

    assert listing(tmp_path / "out") == set()


def test_a_file_that_is_there_is_replaced_by_force_alone(path: Path, tmp_path: Path) -> None:
    content = make(path, "localhost").read_bytes()
    target = tmp_path / "copy.db"
    target.write_bytes(b"the one before")

    with pytest.raises(BadInput, match="is there already") as caught:
        backup(queen([content]), "awake", str(target))
    assert caught.value.hint == f"rbeectl catalog backup --force {target}"
    assert target.read_bytes() == b"the one before"

    backup(queen([content]), "awake", str(target), is_forced=True)
    assert target.read_bytes() == content


def test_force_does_not_replace_what_is_no_file(path: Path, tmp_path: Path) -> None:
    for target in ("/dev/null", str(tmp_path)):
        with pytest.raises(BadInput, match="is no file"):
            backup(queen([]), "awake", target, is_forced=True)


def test_a_disk_that_fills_up_at_the_client_is_told_and_leaves_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RbeeError, match="No space left on device") as caught:
        backup(queen([b"x"]), "awake", str(tmp_path / "out/copy.db"))

    assert caught.value.hint == f"df -h {tmp_path / 'out'}"
    assert listing(tmp_path / "out") == set()


@pytest.mark.parametrize("state", ["off", "asleep", "waking", "stopping", "failed"])
def test_a_queen_who_is_not_awake_is_not_woken_for_a_backup(path: Path, tmp_path: Path, state: str) -> None:
    with pytest.raises(NotRunning, match=f"the queen is {state}") as caught:
        backup(queen([]), state, str(tmp_path / "copy.db"))

    wakes = (caught.value.hint or "").splitlines()[0]
    assert wakes.startswith(("systemctl start", "systemctl status", "rbeectl catalog backup"))
    assert not (tmp_path / "copy.db").exists()


# check


def test_a_log_is_read_with_its_file_and_nothing_is_left_or_changed(path: Path, tmp_path: Path) -> None:
    backup_file = make_killed(tmp_path / "media/backup.db", "one", "two")
    before = {one.name: one.read_bytes() for one in backup_file.parent.iterdir()}

    report = check_file(backup_file)

    assert (report.path, report.hives, report.version) == (str(backup_file), 3, VERSION)
    assert {one.name: one.read_bytes() for one in backup_file.parent.iterdir()} == before


def test_a_check_of_what_is_no_catalog_fails_with_78(path: Path, tmp_path: Path) -> None:
    for content in (b"", b"garbage" * 1000):
        (tmp_path / "x.db").write_bytes(content)
        with pytest.raises(CatalogUnusable, match="is damaged") as caught:
            check_file(tmp_path / "x.db")
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
    ],
)  # fmt: skip
def test_a_check_finds_what_makes_a_list_fail_and_says_how_to_mend_it(
    path: Path, statement: str, told: str, mend: str
) -> None:
    make(path, "localhost", "gpu1")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)

    with pytest.raises(CatalogUnusable, match=re.escape(told)) as caught:
        check_file(path)

    assert caught.value.exit_code == 78
    command = shlex.split(caught.value.hint or "")
    assert command[:2] == ["sudo", "sqlite3"]
    assert command[3] == mend
    with closing(sqlite3.connect(command[2], isolation_level=None)) as connection:
        connection.execute(command[3])
    assert check_file(path).version == VERSION


def test_a_check_misses_what_a_queen_has_made(path: Path) -> None:
    make(path, "localhost")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("DROP TABLE tokens")

    with pytest.raises(CatalogUnusable, match="is damaged: its table tokens is missing"):
        check_file(path)


def test_what_no_list_shows_keeps_no_queen_from_starting(path: Path) -> None:
    make(path, "localhost")
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE VIEW v AS SELECT 1")

    Store.open(path).close()


def test_the_check_knows_all_that_each_migration_makes() -> None:
    known: set[tuple[str, str]] = set()
    with closing(sqlite3.connect(":memory:")) as connection:
        for made, file in zip(MADE, sorted(SCHEMA.iterdir()), strict=True):
            known |= made
            connection.executescript(file.read_text())
            there = connection.execute("SELECT type, name FROM sqlite_schema WHERE name NOT GLOB 'sqlite_*'")
            assert set(there) == known


def test_a_file_that_is_not_there_is_wrong_input(path: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no"):
        check_file(tmp_path / "none.db")
    with pytest.raises(BadInput, match="is no file"):
        check_file(tmp_path)


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


def test_the_queen_s_own_file_is_known_by_any_name(path: Path, tmp_path: Path) -> None:
    make(path)
    (tmp_path / "link").symlink_to(path)

    assert is_the_queens(str(tmp_path / "link"))
    assert not is_the_queens(str(tmp_path / "other"))


# restore


def test_a_restore_keeps_the_old_one_with_its_log(path: Path, tmp_path: Path) -> None:
    make_killed(path, "acknowledged")
    source = make(tmp_path / "media/backup.db", "restored")

    done = restore(str(source))

    assert names_in(path) == ["restored"]
    assert done.old is not None
    assert names_in(done.old) == ["acknowledged", "before"]
    assert done.report is not None
    assert (done.report.hives, done.report.path) == (1, str(source))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_uid == path.parent.stat().st_uid


def test_a_backup_with_a_log_is_restored_with_all_that_is_in_it(path: Path, tmp_path: Path) -> None:
    source = make_killed(tmp_path / "media/backup.db", "last")
    make(path, "old")

    restore(str(source))

    assert names_in(path) == ["before", "last"]


def test_an_old_one_is_restored_like_any_other(path: Path, tmp_path: Path) -> None:
    make_killed(path, "acknowledged")
    old = restore(str(make(tmp_path / "media/backup.db"))).old
    assert old is not None

    again = restore(str(old))

    assert names_in(path) == ["acknowledged", "before"]
    assert again.old != old


def test_two_restores_in_one_second_keep_both(path: Path, tmp_path: Path) -> None:
    source = make(tmp_path / "media/backup.db")
    make(path, "first")

    olds = [restore(str(source)).old, restore(str(source)).old, restore(str(source)).old]

    assert len(set(olds)) == 3
    assert all(old is not None and old.exists() for old in olds)


@pytest.mark.parametrize(("call", "number"), [("link", 1), ("rename", 2), ("rename", 3)])
def test_a_restore_that_fails_leaves_the_catalog_that_there_is_to_its_queen(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    make_killed(path, "acknowledged")
    source = make(tmp_path / "media/backup.db", "restored")
    before = sorted(one.name for one in path.parent.iterdir())
    works, count = getattr(os, call), itertools.count(1)

    def fails(*arguments: Any, **options: Any) -> None:
        # As a file system without links does, or one that has become full.
        if next(count) == number:
            raise OSError(errno.EPERM if call == "link" else errno.ENOSPC, "it does not")
        works(*arguments, **options)

    monkeypatch.setattr(os, call, fails)
    with pytest.raises(RbeeError):
        restore(str(source))

    assert sorted(one.name for one in path.parent.iterdir()) == before
    catalog = Store.open(path)
    assert {row.id for row in run(catalog.hives.all())} == {"acknowledged", "before"}
    catalog.close()


def test_a_restore_of_nothing_sets_aside_and_lets_the_queen_begin_anew(path: Path) -> None:
    make_killed(path, "acknowledged")

    done = restore(None)

    assert done.report is None
    assert done.old is not None
    assert names_in(done.old) == ["acknowledged", "before"]
    catalog = Store.open(path)
    assert run(catalog.hives.all()) == []
    catalog.close()


def test_what_the_queen_would_refuse_is_never_restored(path: Path, tmp_path: Path) -> None:
    make(path, "mine")
    before = path.read_bytes()
    for content in (b"", b"garbage" * 1000, path.read_bytes()[:5000]):
        (tmp_path / "x.db").write_bytes(content)
        with pytest.raises(CatalogUnusable):
            restore(str(tmp_path / "x.db"))
    with closing(sqlite3.connect(tmp_path / "newer.db")) as newer, newer:
        newer.execute(f"PRAGMA application_id = {int.from_bytes(b'rbee', 'big')}")
        newer.execute("CREATE TABLE hives (id TEXT)")
        newer.execute("PRAGMA user_version = 9")
    with pytest.raises(CatalogUnusable, match="has version 9"):
        restore(str(tmp_path / "newer.db"))

    assert path.read_bytes() == before
    assert listing(path.parent) == {"catalog.db"}


def test_an_awake_queen_keeps_her_catalog_and_is_named(path: Path, tmp_path: Path) -> None:
    source = make(tmp_path / "media/backup.db", "restored")
    make(path, "mine")
    awake = Store.open(path)

    with pytest.raises(CatalogInUse) as caught:
        restore(str(source))
    awake.close()

    assert caught.value.hint == "rbeectl shutdown"
    assert f"(process {os.getpid()})" in caught.value.message
    assert names_in(path) == ["mine"]


def test_somebody_who_is_not_root_is_told_to_be(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    for file, again in (("my backup.db", "'my backup.db'"), (None, "--empty")):
        with pytest.raises(NotPermitted) as caught:
            restore(file)
        assert caught.value.hint == f"sudo rbeectl catalog restore {again}"


def test_a_link_in_the_catalog_s_place_is_not_followed(path: Path, tmp_path: Path) -> None:
    source = make(tmp_path / "media/backup.db")
    path.parent.mkdir()
    (tmp_path / "precious").write_bytes(b"precious")
    path.symlink_to(tmp_path / "precious")
    with pytest.raises(BadInput, match="symbolic link"):
        restore(str(source))

    path.unlink()
    Path(f"{path}.new").symlink_to(tmp_path / "precious")
    restore(str(source))

    assert (tmp_path / "precious").read_bytes() == b"precious"
    assert not path.is_symlink()


def test_a_disk_that_is_full_leaves_the_old_one_in_place(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(path, "mine")
    source = make(tmp_path / "media/backup.db")

    def full(*_arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RbeeError, match="No space left on device"):
        restore(str(source))

    assert names_in(path) == ["mine"]
    assert listing(path.parent) == {"catalog.db"}


CUT = """
import os, sys
from pathlib import Path
import rbee.keeper.catalog.restore as catalog

left = int(sys.argv[1])

def cut(call):
    def counted(*arguments, **named):
        global left
        if left == 0:
            os._exit(9)
        left -= 1
        return call(*arguments, **named)
    return counted

for name in ("rename", "fsync", "fchown", "link", "unlink"):
    setattr(os, name, cut(getattr(os, name)))
os.geteuid = lambda: 0
catalog.restore(sys.argv[3] or None, path=Path(sys.argv[2]))
"""


@pytest.mark.parametrize("is_empty", [False, True], ids=["a backup", "nothing"])
def test_a_restore_that_is_cut_off_anywhere_loses_nothing_and_is_finished_by_another(
    tmp_path: Path, is_empty: bool
) -> None:
    steps = 0
    ends = set()
    wanted = [] if is_empty else ["restored"]
    while True:
        path = make_killed(tmp_path / str(steps) / "state/catalog.db", "acknowledged")
        source = "" if is_empty else str(make(tmp_path / str(steps) / "media/backup.db", "restored"))

        def restored(after: int, path: Path = path, source: str = source) -> int:
            command = [sys.executable, "-c", CUT, str(after), str(path), source]
            return subprocess.run(command, cwd=REPOSITORY, timeout=60).returncode

        ended = restored(steps)
        ends.add(how_the_queen_starts(path))
        assert restored(-1) == 0
        assert how_the_queen_starts(path) == " ".join(wanted)
        kept = [one for one in path.parent.glob("*.old") if "acknowledged" in names_in(one)]
        assert len(kept) == 1, f"cut off after {steps} steps: {listing(path.parent)}"
        if ended == 0:
            break
        assert ended == 9
        steps += 1
    # All of the one or all of the other, and never the new one with the old one's log.
    assert ends == {"acknowledged before", "it was cut off in its middle", " ".join(wanted)}
    assert steps >= 6


def how_the_queen_starts(path: Path) -> str:
    """The hives that she finds; looking at a copy, or she would write the log back."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(path.parent, folder, dirs_exist_ok=True)
        try:
            catalog = Store.open(Path(folder) / path.name)
        except CatalogUnusable as error:
            return f"it {error.message.partition(' was ')[1].strip()} {error.message.partition(' was ')[2]}"
        names = [row.id for row in run(catalog.hives.all())]
        catalog.close()
        return " ".join(names)


def test_a_check_of_the_queen_s_file_keeps_her_from_starting_meanwhile(path: Path) -> None:
    make(path)
    with Lock.take(path), pytest.raises(CatalogInUse):
        check_own(queen([], state="asleep"))
