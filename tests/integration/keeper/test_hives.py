"""The hives of the catalog, as the queen has them."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request

from rbee.errors import UnknownHive
from rbee.wire.routes import QueenRoutes
from tests.unit.keeper.doubles import Rbeectl, WithQueen, listing
from tests.unit.played_systemd import PlayedBus
from tests.unit.wire_values import HIVE_VIEW


@pytest.mark.parametrize("verb", ["show", "status", "list-devices"])
def test_a_hive_is_found_in_any_case_of_its_name(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, verb: str
) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl(verb, "LocalHost", "--json"))

    assert ran.code == 0
    assert '"id": "localhost"' in ran.out


@pytest.mark.parametrize("verb", ["show", "status", "list-devices"])
def test_one_hive_is_asked_for_alone(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, log: list[Any], verb: str
) -> None:
    queen = listing(HIVE_VIEW)
    del queen[QueenRoutes.HIVES]

    assert with_queen(queen, lambda: rbeectl(verb, "localhost")).code == 0


def test_a_queen_who_knows_one_spelling_alone_has_the_hive_found_in_her_list(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    async def unknown(_request: Request) -> Any:
        raise UnknownHive("hive 'LocalHost' is not in the hive catalog")

    queen = {**listing(HIVE_VIEW), QueenRoutes.HIVE: unknown}

    assert with_queen(queen, lambda: rbeectl("show", "LocalHost", "-p", "Id")).out == "Id=localhost\n"


@pytest.mark.parametrize("verb", ["show", "status", "list-devices"])
def test_a_mistyped_hive_suggests_the_near_one(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, verb: str
) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl(verb, "lcoalhost"))

    assert (ran.code, ran.out) == (4, "")
    assert "hive 'lcoalhost' is not in the hive catalog; did you mean localhost?" in ran.err
