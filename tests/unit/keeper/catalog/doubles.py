"""Catalogs as files, and a queen who answers with one."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Awaitable, Iterator
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeVar

from rbee.queen.store.store import Store
from rbee.scope import SYSTEM
from rbee.wire.routes import QueenRoutes, Route

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


class Queen:
    """Answers with these parts of a file, and then perhaps with an error."""

    def __init__(self, parts: list[bytes], error: Exception | None = None, *, state: str = "awake") -> None:
        self._parts = parts
        self._state = state
        self._error = error
        self.work = SimpleNamespace(scope=SYSTEM)

    def present_state(self) -> str:
        return self._state

    def fetch(self, route: Route) -> Iterator[bytes]:
        assert route is QueenRoutes.CATALOG
        yield from self._parts
        if self._error is not None:
            raise self._error


def queen(parts: list[bytes], error: Exception | None = None, *, state: str = "awake") -> Any:
    return Queen(parts, error, state=state)
