"""The verb version, with a queen that is served."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from rbee import __version__
from rbee.server.app import Handler
from rbee.wire.daemon import Health
from rbee.wire.routes import QueenRoutes, Route
from tests.unit.keeper.doubles import Rbeectl, WithQueen, listing
from tests.unit.played_systemd import PlayedBus
from tests.unit.wire_values import HIVE_VIEW


def told_by(hive_version: str | None, queen_version: str = __version__) -> dict[Route, Handler]:
    async def health(_request: Request) -> Health:
        return Health("ok", queen_version)

    return {QueenRoutes.HEALTH: health, **listing(HIVE_VIEW._replace(version=hive_version))}


def test_versions_that_fit_have_no_note(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    ran = with_queen(told_by(__version__), lambda: rbeectl("version"))

    assert ran.code == 0
    assert [line.split() for line in ran.out.splitlines()] == [
        ["PROGRAM", "VERSION", "NOTE"],
        ["rbeectl", __version__],
        ["queen", __version__],
        ["hive", "localhost", __version__],
    ]


def test_a_skew_is_said_with_what_mends_it(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    ran = with_queen(told_by("0.0.8", "0.0.9"), lambda: rbeectl("version"))

    queen, hive = ran.out.splitlines()[2:]
    assert "0.0.9" in queen
    assert queen.endswith(f"the package has {__version__}: sudo systemctl try-restart queen-rbee.service")
    assert "0.0.8" in hive
    assert hive.endswith(f"the package has {__version__}: sudo systemctl try-restart rbee-hive.service")


@pytest.mark.parametrize(
    ("version", "note"),
    [
        ("0.0.9", ""),
        ("0.0.10", "newer than the queen's 0.0.9: upgrade rbee-queen, on this machine"),
        ("0.0.8", "older than the queen's 0.0.9: upgrade rbee-hive, on gpu1"),
    ],
)
def test_a_skew_with_another_machine_names_the_machine_and_the_package(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, version: str, note: str
) -> None:
    gpu1 = HIVE_VIEW._replace(id="gpu1", is_remote=True, version=version)
    queen = told_by("0.0.9", "0.0.9") | listing(gpu1)

    hive = with_queen(queen, lambda: rbeectl("version")).out.splitlines()[-1]

    assert hive == f"hive gpu1  {version:<7}  {note}".rstrip()


def test_a_hive_that_has_not_beaten_has_no_version(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    assert with_queen(told_by(None), lambda: rbeectl("version")).out.endswith(
        "hive localhost  -        it is online\n"
    )
    told = with_queen(told_by(None), lambda: rbeectl("version", "--json")).json[0]
    assert told["hives"] == [{"id": "localhost", "state": "online", "version": None}]
