"""Checks and copies of all of an SQLite catalog."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from rbee import catalogfile
from rbee.catalogfile import APPLICATION_ID, VERSION, way_out
from rbee.errors import CatalogFailed, CatalogUnusable, TimedOut, TooMany
from rbee.queen.store.copies import COPIES_MAX
from rbee.queen.store.store import Store
from tests.unit.queen.store.engines import DEVICES
from tests.unit.queen.store.files import contents, stored


async def test_a_check_reports_version_hives_and_size(catalog: Store, path: Path) -> None:
    await catalog.hives.add("localhost", "localhost", 8600)

    report = await catalog.check()

    size = sum(one.stat().st_size for one in (path, Path(f"{path}-wal")))
    assert (report.path, report.version, report.hives, report.size_bytes) == (str(path), VERSION, 1, size)


async def test_a_copy_has_every_row_is_one_file_and_stays_as_it_was(catalog: Store, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy/catalog.db"
    await asyncio.gather(*(catalog.hives.add(f"hive{n}", f"hive{n}", 1 + n) for n in range(100)))
    with await catalog.copy() as file:
        await catalog.hives.remove("hive7")
        copy.write_bytes(file.read())

    assert len(stored(copy)) == 100
    assert stored(copy, "PRAGMA journal_mode") == [("delete",)]
    assert stored(copy, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert list(contents(copy.parent)) == ["catalog.db"]


async def test_copies_made_while_others_write_are_sound(catalog: Store, tmp_path: Path) -> None:
    async def write(n: int) -> None:
        await catalog.hives.add(f"hive{n}", f"hive{n}", 1 + n)
        await catalog.hives.set_online(f"hive{n}", DEVICES)

    async def copy() -> bytes:
        with await catalog.copy() as file:
            return file.read()

    done = await asyncio.gather(copy(), *(write(n) for n in range(200)), copy())
    for number, content in enumerate(content for content in done if content is not None):
        path = tmp_path / f"{number}.db"
        path.write_bytes(content)
        assert stored(path, "PRAGMA integrity_check") == [("ok",)]


async def test_more_copies_than_are_allowed_are_refused_until_one_is_closed(catalog: Store) -> None:
    copies = [await catalog.copy() for _ in range(COPIES_MAX)]
    with pytest.raises(TooMany, match="no more at once"):
        await catalog.copy()
    copies.pop().close()
    copies.append(await catalog.copy())
    for copy in copies:
        copy.close()


def garble(path: Path) -> None:
    """Garbage in the table's root page, and a commit of somebody's, so that no cache hides it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * 4096)
        other.execute(f"PRAGMA user_version = {VERSION}")


async def test_damage_that_shows_later_is_told_with_the_way_out(catalog: Store, path: Path) -> None:
    for n in range(200):
        await catalog.hives.add(f"hive{n}", f"hive{n}", 8600)
    garble(path)

    for reads in (catalog.hives.all, lambda: catalog.hives.find("hive7")):
        with pytest.raises(CatalogFailed, match="is damaged") as caught:
            await reads()
        assert caught.value.hint == way_out(is_open=True)
    for reads_all in (catalog.check, catalog.copy):
        with pytest.raises(CatalogUnusable, match="is damaged") as shown:
            await reads_all()
        assert shown.value.hint == way_out(is_open=True)
        assert str(path) in shown.value.message


async def test_reading_all_of_it_ends_in_time(catalog: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(50):
        await catalog.hives.add(f"hive{n}", f"hive{n}", 8600)
        await catalog.hives.set_online(f"hive{n}", DEVICES)
    monkeypatch.setattr("rbee.queen.store.copies.READ_TIMEOUT", -1)

    for reads_all in (catalog.check, catalog.copy):
        with pytest.raises(TimedOut, match="took longer"):
            await reads_all()


async def test_a_check_that_waits_for_another_has_all_of_its_time_after_that(
    catalog: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = catalogfile.check

    def slow(*arguments: Any, goes_on: Callable[[], bool], **options: Any) -> Any:
        time.sleep(0.3)
        if not goes_on():
            raise TimeoutError
        return real(*arguments, goes_on=goes_on, **options)

    monkeypatch.setattr("rbee.queen.store.copies.catalogfile.check", slow)
    monkeypatch.setattr("rbee.queen.store.copies.READ_TIMEOUT", 0.5)
    await asyncio.gather(catalog.check(), catalog.check())

    monkeypatch.setattr("rbee.queen.store.copies.WAIT_TIMEOUT", 0.1)
    first, second = await asyncio.gather(catalog.check(), catalog.check(), return_exceptions=True)
    assert not isinstance(first, BaseException)
    assert isinstance(second, TimedOut)
    assert "other checks and copies of" in second.message
