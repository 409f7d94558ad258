"""Another catalog in the place of the queen's."""

from __future__ import annotations

import errno
import itertools
import os
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rbee.catalogfile import Lock, unfinished_restore
from rbee.errors import BadInput, CatalogInUse, CatalogUnusable, NotPermitted, RbeeError
from rbee.keeper.catalog.restore import restore
from rbee.narration import Event, Narrator
from rbee.queen.store.store import Store
from tests.unit.keeper.catalog.doubles import listing, make, make_killed, names_in, run


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


def keys_in(path: Path, **added: bool) -> dict[str, bool]:
    """Each key of a catalog, with whether it is revoked; `added` are put into it before."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(
            "INSERT INTO keys VALUES (?, ?, '[]', 1, NULL, ?, 0, NULL)",
            [(name, f"hash of {name}", is_revoked) for name, is_revoked in added.items()],
        )
        return {
            name: bool(revoked) for name, revoked in connection.execute("SELECT name, is_revoked FROM keys")
        }


def test_a_client_s_key_that_was_revoked_since_the_backup_stays_revoked(path: Path, tmp_path: Path) -> None:
    source = make(tmp_path / "media/backup.db")
    keys_in(source, alice=False, bob=True, carol=False)
    make(path)
    keys_in(path, alice=True, carol=False, dave=False)

    done = restore(str(source))

    assert keys_in(path) == {"alice": True, "bob": True, "carol": False}
    assert done.keeps_revoked


def test_a_revoked_key_stays_so_if_the_restore_before_was_interrupted(path: Path, tmp_path: Path) -> None:
    source = make(tmp_path / "media/backup.db")
    keys_in(source, alice=False)
    prepared = make(path.with_name("prepared"))
    keys_in(prepared, alice=True)
    prepared.rename(unfinished_restore(path))  # and the previous catalog is set aside

    assert restore(str(source)).keeps_revoked

    assert keys_in(path) == {"alice": True}


@pytest.mark.parametrize("previous", ["damaged", "of before there were keys", "none"])
def test_a_previous_catalog_that_tells_no_revoked_keys_keeps_none(
    path: Path, tmp_path: Path, previous: str
) -> None:
    source = make(tmp_path / "media/backup.db")
    keys_in(source, alice=False)
    if previous == "none":
        path.parent.mkdir()
    else:
        make(path)
    if previous == "damaged":
        path.write_bytes(b"no catalog at all" * 1000)
    elif previous != "none":
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("DROP TABLE keys")

    done = restore(str(source))

    assert keys_in(path) == {"alice": False}
    assert done.keeps_revoked is (previous != "damaged")


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


class Tape(Narrator):
    def __init__(self) -> None:
        self.told: list[str] = []

    def narrate(self, event: Event, text: str, **fields: Any) -> None:
        self.told.append(text)


@pytest.mark.parametrize("source", ["backup.db", None])
def test_ctrl_c_while_one_takes_the_other_s_place_waits_until_it_has(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str | None
) -> None:
    make(path, "old")
    backup = None if source is None else str(make(tmp_path / source, "new"))
    sync, journal = Lock.sync, Tape()

    def interrupted(lock: Lock) -> None:
        signal.raise_signal(signal.SIGINT)
        sync(lock)

    monkeypatch.setattr(Lock, "sync", interrupted)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            restore(backup, journal=journal)
    finally:
        signal.signal(signal.SIGINT, before)

    assert not unfinished_restore(path).exists()
    assert (names_in(path) if source else path.exists()) == (["new"] if source else False)
    assert len(journal.told) == 1


def test_ctrl_c_before_that_leaves_the_old_one_and_nothing_beside_it(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(path, "old")
    backup = make(tmp_path / "media/backup.db", "new")

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fchown", interrupted)
    before = listing(path.parent)

    with pytest.raises(KeyboardInterrupt):
        restore(str(backup))

    assert listing(path.parent) == before
