"""What keeps the catalog from being used, and the cure."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rbee.errors import CatalogFailed, CatalogUnusable
from rbee.queen.store.store import Store
from rbee.wire.devices import Devices, Gpu
from tests.unit.queen.store.engines import DEVICES
from tests.unit.queen.store.files import a_catalog, engine_of, stored


async def test_a_catalog_that_another_process_holds_for_too_long_fails_with_the_cause(
    catalog: Store, path: Path
) -> None:
    engine_of(catalog)._connection.execute("PRAGMA busy_timeout = 1")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(CatalogFailed, match="database is locked") as caught:
            await catalog.hives.add("localhost", "localhost", 8600)

    assert caught.value.hint
    assert (await catalog.hives.add("localhost", "localhost", 8600)).id == "localhost"


async def test_a_full_catalog_fails_with_the_cure_and_writes_nothing_half(catalog: Store, path: Path) -> None:
    await catalog.hives.add("localhost", "localhost", 8600)
    before = stored(path)
    (pages,) = engine_of(catalog)._connection.execute("PRAGMA page_count").fetchone()
    engine_of(catalog)._connection.execute(f"PRAGMA max_page_count = {pages}")
    large = Devices(DEVICES.cpu, tuple(Gpu(n, "amd", "x" * 2000, None, None, None, None) for n in range(64)))

    with pytest.raises(CatalogFailed, match="full") as caught:
        await catalog.hives.set_online("localhost", large)

    assert caught.value.hint == f"df -h {path.parent}"
    assert stored(path) == before

    engine_of(catalog)._connection.execute("PRAGMA max_page_count = 1000000")
    await catalog.hives.set_online("localhost", large)
    row = await catalog.hives.find("localhost")
    assert row is not None
    assert row.devices == large


def test_a_folder_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(CatalogUnusable, match="there is no folder") as caught:
        Store.open(tmp_path / "missing/catalog.db")

    assert (caught.value.hint or "").endswith(f" -m 0700 {tmp_path / 'missing'}")


async def test_a_catalog_that_another_process_holds_is_not_called_damaged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await a_catalog(path)
    monkeypatch.setattr("rbee.catalogfile.BUSY_TIMEOUT", 0.01)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(CatalogUnusable, match="locked") as caught:
            Store.open(path)

    assert "damaged" not in caught.value.message
    assert caught.value.hint == "sudo rbeectl doctor"
