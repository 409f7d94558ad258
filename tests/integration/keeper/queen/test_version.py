"""Whether the queen who runs is one that this rbeectl can ask, with a queen that is served."""

from __future__ import annotations

import pytest
from starlette.requests import Request

from rbee import __version__
from rbee.errors import VersionSkew
from rbee.wire.events import FeedEvents
from rbee.wire.routes import QueenRoutes
from tests.unit.keeper.doubles import Rbeectl, WithQueen, listing, of_version
from tests.unit.played_systemd import PlayedBus
from tests.unit.wire_values import HIVE_VIEW

VERBS = ("label gpu1 rack=3", "token list", "audit", "tcp status", "metrics", "monitor", "catalog check")


@pytest.mark.parametrize("verb", VERBS)
def test_an_older_queen_is_known_by_her_version_before_she_misses_a_route(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, verb: str
) -> None:
    ran = with_queen(of_version("0.1.0"), lambda: rbeectl(*verb.split()))

    assert ran.code == VersionSkew.exit_code
    assert ran.err.splitlines()[:2] == [
        "rbeectl: the queen that runs on this machine is version 0.1.0, which is too old for rbeectl "
        f"{__version__}",
        "  try: sudo systemctl try-restart queen-rbee.service",
    ]


def test_what_every_queen_serves_is_asked_of_an_older_one_too(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    older = {**of_version("0.1.0"), **listing(HIVE_VIEW)}

    for verb in ("list-hives", "status", "version", "show localhost"):
        assert with_queen(older, lambda verb=verb: rbeectl(*verb.split())).code == 0  # type: ignore[misc]


def test_her_version_is_asked_once_a_verb(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    asked = []

    async def health(request: Request) -> object:
        asked.append(request.url.path)
        return await of_version(__version__)[QueenRoutes.HEALTH](request)

    async def last_events(_request: Request) -> FeedEvents:
        return FeedEvents(f"{'a' * 16}-1", ())

    queen = {**listing(HIVE_VIEW), QueenRoutes.HEALTH: health, QueenRoutes.LAST_EVENTS: last_events}
    with_queen(queen, lambda: rbeectl("status", "localhost"))
    with_queen(queen, lambda: rbeectl("list-hives"))

    assert asked == ["/health"]
