"""Copies and checks of the catalog over the queen's socket, while she works."""

from __future__ import annotations

import asyncio
import os
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

import pytest

from rbee.catalogfile import VERSION
from rbee.client.queen import QueenClient
from rbee.errors import PROBLEM_PREFIX
from rbee.keeper.catalog.backup import backup
from rbee.queen.store.copies import COPIES_MAX
from rbee.queen.store.sqlite import SQLite
from rbee.scope import SYSTEM
from rbee.wire.catalog import CatalogReport
from rbee.wire.routes import QueenRoutes
from tests.integration.house import House, Queen, soon, until


async def saved(house: House, name: str = "copy.db") -> CatalogReport | None:
    target = str(house.root / name)
    queen = SimpleNamespace(fetch=QueenClient(house.queen_path).fetch, work=SimpleNamespace(scope=SYSTEM))
    return await soon(asyncio.to_thread(backup, cast(Any, queen), "awake", target))


def rows_of(path: Path) -> list[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        return list(connection.execute("SELECT id, status FROM hives"))


async def test_a_copy_is_what_the_queen_has_and_one_file(house: House) -> None:
    await house.added()

    report = await saved(house)

    assert report is not None
    assert (report.path, report.version, report.hives) == (str(house.root / "copy.db"), VERSION, 1)
    assert rows_of(house.root / "copy.db") == [("localhost", "online")]
    assert not (house.root / "copy.db-wal").exists()


async def test_the_answer_says_what_it_is_and_how_long(house: House) -> None:
    await house.added()

    answer = await house.send("GET", "/v1/catalog")

    assert answer.headers["content-type"] == "application/vnd.sqlite3"
    assert int(answer.headers["content-length"]) == len(answer.content)
    assert answer.content.startswith(b"SQLite format 3\0")


async def test_a_check_says_version_hives_and_size(house: House) -> None:
    await house.added()

    report = await house.ask(QueenRoutes.CHECK_CATALOG)

    assert report == CatalogReport(str(house.catalog_path), VERSION, 1, report.size_bytes)
    assert report.size_bytes >= house.catalog_path.stat().st_size


async def test_copies_made_while_hives_come_and_go_are_all_sound(house: House) -> None:
    await house.wake_queen()

    async def come_and_go() -> None:
        for _ in range(3):
            await house.add().end()
            await house.remove().end()

    await asyncio.gather(come_and_go(), *(saved(house, f"{n}.db") for n in range(3)))

    for n in range(3):
        rows_of(house.root / f"{n}.db")


def copies_of(queen: Queen) -> Callable[[], list[BinaryIO]]:
    """Those that the queen has made, and may be sending."""
    engine = queen.catalog.engine
    assert isinstance(engine, SQLite)
    return lambda: engine._copies._copies


async def test_clients_that_never_read_their_copy_do_not_keep_others_from_the_queen(house: House) -> None:
    queen = await house.added()
    copies = copies_of(queen)
    for n in range(3000):  # more than a socket takes at once
        await queen.catalog.hives.add(f"hive{n}", "x" * 200, 1)
    stuck = []
    try:
        for _ in range(COPIES_MAX):
            channel = socket.socket(socket.AF_UNIX)
            stuck.append(channel)
            channel.connect(os.fspath(house.queen_path))
            channel.sendall(b"GET /v1/catalog HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: len([copy for copy in copies() if not copy.closed]) == COPIES_MAX)

        refused = await house.send("GET", "/v1/catalog")
        assert (refused.status, refused.json["type"]) == (503, PROBLEM_PREFIX + "too-many")
        assert (await house.send("GET", "/health")).status == 200
    finally:
        for channel in stuck:
            channel.close()
    await until(lambda: all(copy.closed for copy in copies()))

    assert (await house.send("GET", "/v1/catalog")).status == 200


async def test_a_client_that_does_not_take_its_copy_in_time_is_given_up(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.server.connection.SEND_TIMEOUT", 0.1)
    queen = await house.added()
    copies = copies_of(queen)
    for n in range(3000):
        await queen.catalog.hives.add(f"hive{n}", "x" * 200, 1)
    with closing(socket.socket(socket.AF_UNIX)) as channel:
        channel.connect(os.fspath(house.queen_path))
        channel.sendall(b"GET /v1/catalog HTTP/1.1\r\nHost: localhost\r\n\r\n")
        await until(lambda: len(copies()) == 1)
        await until(lambda: copies()[0].closed)
