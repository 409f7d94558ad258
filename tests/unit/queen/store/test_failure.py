"""What keeps the catalog from being used, and the cure."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from rbee.errors import CatalogFailed, CatalogUnusable
from rbee.queen.store.store import Store
from rbee.wire.devices import Devices, Gpu
from tests.unit.queen.store.engines import DEVICES
from tests.unit.queen.store.files import a_catalog, engine_of, stored

REPOSITORY = Path(__file__).parents[4]


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


LIMITED = """
import asyncio, json, resource, signal, sys
from pathlib import Path
from rbee.wire.devices import Cpu, Devices, Gpu
from rbee.errors import RbeeError
from rbee.queen.store.store import Store
path, limit, when = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def full():
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
def room():
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
large = Devices(
    Cpu(None, None, None, None, None),
    tuple(Gpu(n, "amd", "x" * 2000, None, None, None, None) for n in range(64)),
)
async def main(catalog):
    await catalog.hives.add("localhost", "localhost", 8600)
    full()
    try:
        await catalog.hives.set_online("localhost", large)
    finally:
        room()
try:
    if when == "open":
        full()
    catalog = Store.open(path)
    asyncio.run(main(catalog))
except RbeeError as error:
    room()
    print(json.dumps([type(error).__name__, error.message, error.hint]))
else:
    print("null")
"""


def limited(path: Path, limit: int, when: str) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), str(limit), when],
        capture_output=True, text=True, check=True, cwd=REPOSITORY,
    )  # fmt: skip
    told: list[str] = json.loads(ran.stdout)
    return told


async def test_a_disk_that_fills_up_while_writing_leaves_the_row_as_it_was(path: Path) -> None:
    kind, message, hint = limited(path, 60_000, "write")

    assert kind == "CatalogFailed"
    assert message == f"{path} cannot be used: File too large"
    assert f"df -h {path.parent}" in hint
    catalog = Store.open(path)
    (row,) = await catalog.hives.all()
    catalog.close()
    assert (row.status, row.devices) == ("pending", None)
    assert stored(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("limit", [0, 100, 5000])
async def test_a_disk_that_is_full_when_the_catalog_is_made_is_told_with_the_cure(
    path: Path, limit: int
) -> None:
    kind, message, hint = limited(path, limit, "open")

    assert kind == "CatalogUnusable"
    assert str(path) in message
    assert f"df -h {path.parent}" in hint
    assert list(path.parent.iterdir()) == []
    # And once there is room, it works.
    catalog = Store.open(path)
    assert await catalog.hives.all() == []
    catalog.close()


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
