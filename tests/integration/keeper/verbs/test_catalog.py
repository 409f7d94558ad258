"""The verbs of catalog, with a queen that is served."""

from __future__ import annotations

from starlette.requests import Request

from rbee.server.app import Handler
from rbee.wire.catalog import CatalogReport
from rbee.wire.codec import encode
from rbee.wire.routes import QueenRoutes, Route
from tests.unit.keeper.doubles import Ran, Rbeectl, WithQueen
from tests.unit.played_systemd import PlayedBus

REPORT = CatalogReport("/var/lib/queen-rbee/catalog.db", 1, 2, 20480)


def reporting() -> dict[Route, Handler]:
    async def handler(_request: Request) -> CatalogReport:
        return REPORT

    return {QueenRoutes.CHECK_CATALOG: handler}


def test_a_check_is_said_in_a_line(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    ran = with_queen(reporting(), lambda: rbeectl("catalog", "check"))

    assert ran == Ran(0, f"{REPORT.path} is sound: 2 hives, 20.0 KiB, version 1\n", "")


def test_a_check_is_told_to_programs_in_json(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen(reporting(), lambda: rbeectl("catalog", "check", "--json"))

    assert ran.json == [{"event": "done", **encode(REPORT)}]
