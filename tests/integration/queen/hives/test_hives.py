"""The hives in the catalog: which there are when the queen wakes, and which there are not."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rbee.errors import UnknownHive
from tests.integration.queen.hives.local_hive import DEVICES, MakeQueen, a_row, beat

pytestmark = pytest.mark.deadline(10)


async def test_a_beat_of_a_hive_that_nobody_added_is_refused_and_nothing_is_written(queen: MakeQueen) -> None:
    async with queen() as q:
        for state in ("starting", "ready", "stopping"):
            with pytest.raises(UnknownHive, match="'localhost' is not in the hive catalog") as caught:
                await q.hives.heartbeat(beat(state=state))
        assert caught.value.hint == "rbeectl add-hive localhost"
        assert await q.catalog.hives.all() == []
        assert q.hives.find("localhost") is None


async def test_a_queen_who_wakes_takes_each_hive_as_unknown_until_she_hears_of_it(
    queen: MakeQueen, tmp_path: Path
) -> None:
    await a_row(tmp_path / "catalog.db", status="online", wanted=True)
    async with queen(begin=False) as q:
        (view,) = map(q.hives.view, q.hives.names)

        assert (view.state, view.status, view.devices) == ("unknown", "online", DEVICES)
        assert view.reason == "no heartbeat since the queen started (last known: online)"
        assert view.last_beat_ms is None


async def test_rows_without_a_readable_name_are_all_shown(queen: MakeQueen, tmp_path: Path) -> None:
    async with queen(begin=False):
        pass
    with closing(sqlite3.connect(tmp_path / "catalog.db")) as connection, connection:
        for name in ("no name!", "nor this?"):
            connection.execute(
                "INSERT INTO hives (id, host, port, status, created_at_ms, updated_at_ms, wanted) "
                "VALUES (?1, ?1, 8600, 'online', 1, 1, 1)",
                (name,),
            )
    async with queen(begin=False) as q:
        shown = [q.hives.view(name).problem or "" for name in q.hives.names]
        assert len(shown) == 2
        assert [name in told for name, told in zip(("no name!", "nor this?"), shown, strict=True)] == [
            True
        ] * 2
        # One of them can be forgotten without the other.
        q.hives.forget(q.hives.hive("unreadable-2"))
        assert q.hives.names == ["unreadable"]
        assert "no name!" in (q.hives.view("unreadable").problem or "")


async def test_an_empty_catalog_wakes_nobody(queen: MakeQueen) -> None:
    async with queen() as q:
        for _ in range(5):
            await q.catalog.hives.all()

        assert q.systemd.asked == []
        assert q.hives.names == []


async def test_a_hive_that_is_not_there_is_unknown(queen: MakeQueen) -> None:
    async with queen() as q:
        with pytest.raises(UnknownHive, match="hive 'blade-7' is not in the hive catalog"):
            q.hives.view("blade-7")
