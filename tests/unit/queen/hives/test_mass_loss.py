"""Hives that are lost, one by one or many at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rbee.queen.hives import mass_loss
from rbee.queen.hives.mass_loss import NAMED_MAX
from rbee.queen.queen import Queen
from rbee.uplink.accept import Uplink
from rbee.wire.heartbeats import Heartbeat, HeartbeatAck
from tests.unit.queen.joined import Tape
from tests.unit.queens import a_queen
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)

MANY = NAMED_MAX + 1


class Fleet:
    """A queen and the connections of its hives, which are all online."""

    def __init__(self, queen: Queen, tape: Tape) -> None:
        self.queen = queen
        self.tape = tape
        self.uplinks: list[Uplink] = []

    async def connect(self, count: int) -> None:
        for number in range(count):
            name = f"hive{number:03}"
            row = await self.queen.catalog.hives.add(name, name, 8600)
            await self.queen.catalog.hives.set_status(name, "online")
            self.queen.hives.take_in(row, "online", "heartbeats received")
            self.uplinks.append(Uplink(name, "1" * 32, "10.0.0.1", take_no_beat))
            await self.queen.hives.uplinks.take(self.uplinks[-1])
        self.tape.told.clear()

    def lose(self, count: int, *, after: int = 0) -> list[str]:
        """Have the connections of hives end, the first or those after some, and return their names."""
        lost = self.uplinks[after : after + count]
        for uplink in lost:
            uplink.connection_lost(None)
        return [uplink.hive_id for uplink in lost]

    async def are_stored(self, names: list[str]) -> None:
        """Wait until these hives, and no others, are offline in the catalog, and as they are kept in RAM."""

        async def are_offline() -> bool:
            stored = await self.queen.catalog.hives.all()
            kept = [hive.standing.row for hive in self.queen.hives.remote()]
            return all(
                [row.id for row in rows if row.status == "offline"] == names for rows in (stored, kept)
            )

        await until(are_offline)

    def narrated(self) -> dict[str, int]:
        events = [event for event, *_ in self.tape.told]
        return {event: events.count(event) for event in events}


async def take_no_beat(_beat: Heartbeat) -> HeartbeatAck:
    raise AssertionError("nobody beats")


@asynccontextmanager
async def a_fleet(folder: Path, count: int, **settings: float) -> AsyncIterator[Fleet]:
    tape = Tape()
    async with a_queen(folder / "queen", tape, **settings) as queen:
        fleet = Fleet(queen, tape)
        await fleet.connect(count)
        yield fleet


async def test_a_few_hives_are_narrated_and_stored_one_by_one(tmp_path: Path) -> None:
    async with a_fleet(tmp_path, 5) as fleet:
        await fleet.are_stored(fleet.lose(2))

        assert fleet.tape.of("hive-offline") == [
            "the beehive hive000 is offline: its connection closed",
            "the beehive hive001 is offline: its connection closed",
        ]
        assert fleet.tape.of("catalog-changed") == [
            "hive hive000 is offline in the hive catalog",
            "hive hive001 is offline in the hive catalog",
        ]
        assert fleet.queen.hives.hive("hive001").standing.row.status == "offline"


async def test_most_of_many_hives_are_one_line_that_names_the_likely_cause(tmp_path: Path) -> None:
    async with a_fleet(tmp_path, MANY + 2) as fleet:
        names = fleet.lose(MANY)
        await fleet.are_stored(names)

        assert fleet.narrated() == {"fleet-lost": 1, "catalog-changed": 1}
        [line] = fleet.tape.of("fleet-lost")
        assert line.startswith(
            f"{MANY} of {MANY + 2} hives were lost within 20 s: likely the network of the "
        )
        assert line.endswith(f"Lost: {', '.join(names[:NAMED_MAX])} and 1 more")
        for name in names:
            view = fleet.queen.hives.view(name)
            assert (view.state, view.status) == ("offline", "offline")
            assert view.reason.endswith("likely the network of the queen's own machine")


async def test_most_of_many_hives_are_one_line_even_if_their_loss_takes_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mass_loss, "MOMENT_EACH", mass_loss.MOMENT)
    async with a_fleet(tmp_path, 3 * MANY) as fleet:
        names = fleet.lose(MANY)
        for _ in range(2):
            await asyncio.sleep(0.6 * mass_loss.MOMENT)
            names += fleet.lose(MANY // 2, after=len(names))
        await fleet.are_stored(names)

        assert fleet.narrated() == {"fleet-lost": 1, "catalog-changed": 1}
        assert fleet.tape.of("fleet-lost")[0].startswith(f"{len(names)} of {3 * MANY} hives were lost")


async def test_many_hives_that_are_not_most_are_one_line_without_a_likely_cause(tmp_path: Path) -> None:
    async with a_fleet(tmp_path, 3 * MANY) as fleet:
        names = fleet.lose(MANY)
        await fleet.are_stored(names)

        assert fleet.narrated() == {"hives-lost": 1, "catalog-changed": 1}
        assert fleet.tape.of("hives-lost") == [
            f"{MANY} hives are offline: its connection closed: {', '.join(names[:NAMED_MAX])} and 1 more"
        ]
        assert fleet.tape.of("catalog-changed") == [f"{MANY} hives are offline in the hive catalog"]


async def test_hives_that_fall_silent_together_are_narrated_and_stored_together_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mass_loss, "MOMENT_EACH", 0.02)
    async with a_fleet(tmp_path, MANY, heartbeat_interval=0.2, heartbeat_grace=0.2) as fleet:
        names = [uplink.hive_id for uplink in fleet.uplinks]
        fleet.queen.hives.begin()
        await fleet.are_stored(names)

        suspect, offline = fleet.tape.of("hives-lost")
        assert suspect.startswith(f"{MANY} hives are suspect: no heartbeat for more than 0.3 s: hive000, ")
        assert offline.startswith(f"{MANY} hives are offline: no heartbeat for 0.4 s: hive000, hive001, ")


async def test_a_hive_that_was_removed_is_not_judged_by_its_silence(tmp_path: Path) -> None:
    async with a_fleet(tmp_path, 2, heartbeat_interval=0.2, heartbeat_grace=0.2) as fleet:
        fleet.queen.hives.forget(fleet.queen.hives.hive("hive000"))
        fleet.queen.hives.begin()
        await fleet.are_stored(["hive001"])

        assert [about["hive"] for _, _, about in fleet.tape.told] == ["hive001"] * 3


async def test_a_hive_that_is_back_at_once_is_narrated_as_lost_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mass_loss, "MOMENT_EACH", 60.0)
    monkeypatch.setattr(mass_loss, "MOMENT", 60.0)
    async with a_fleet(tmp_path, 3) as fleet:
        [name] = fleet.lose(1)
        await fleet.queen.hives.hive(name).standing.is_back(None)

        assert [event for event, *_ in fleet.tape.told if event != "catalog-changed"] == [
            "hive-offline", "hive-online",
        ]  # fmt: skip
        await fleet.are_stored([])
        assert fleet.queen.hives.hive(name).standing.row.status == "online"


async def test_a_queen_that_stops_narrates_and_stores_what_was_lost_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mass_loss, "MOMENT_EACH", 60.0)
    monkeypatch.setattr(mass_loss, "MOMENT", 60.0)
    async with a_fleet(tmp_path, 3) as fleet:
        fleet.lose(1)
        await fleet.queen.work.end()
        await fleet.queen.hives.end()

        assert fleet.tape.of("hive-offline") == ["the beehive hive000 is offline: its connection closed"]
        await fleet.are_stored(["hive000"])


async def test_a_catalog_that_cannot_be_written_is_logged_and_the_state_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_fleet(tmp_path, 3) as fleet:
        fleet.queen.catalog.engine._connection.execute("PRAGMA query_only = 1")  # type: ignore[attr-defined]
        with caplog.at_level(logging.ERROR, "rbee"):
            fleet.lose(1)
            await until(lambda: "offline, and that could not be stored" in caplog.text)

        assert fleet.queen.hives.view("hive000").state == "offline"
