"""SQLite files as they lie on the disk, and their engine."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from rbee.queen.store.sqlite import SQLite
from rbee.queen.store.store import Store
from tests.unit.queen.store.engines import DEVICES


def engine_of(store: Store) -> SQLite:
    assert isinstance(store.engine, SQLite)
    return store.engine


def stored(path: Path, statement: str = "SELECT * FROM hives ORDER BY id") -> list[tuple[Any, ...]]:
    """What another process reads in the file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def contents(folder: Path) -> dict[str, bytes]:
    # SQLite's shared memory is no part of what is stored.
    return {
        one.name: one.read_bytes()
        for one in folder.iterdir()
        if one.is_file() and not one.name.endswith("-shm")
    }


async def a_catalog(path: Path) -> None:
    catalog = Store.open(path)
    for n in range(200):
        await catalog.hives.add(f"hive{n}", f"hive{n}", 8600)
    await catalog.hives.set_online("hive7", DEVICES)
    catalog.close()
