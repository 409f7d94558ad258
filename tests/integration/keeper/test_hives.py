"""The hives of the catalog, as the queen has them."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request

from rbee.errors import UnknownHive, Unreachable
from rbee.server.app import Handler
from rbee.wire.codec import encode
from rbee.wire.hives import Hives, Label
from rbee.wire.routes import QueenRoutes
from rbee.wire.workers import Holder, Memory, Pool
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


def paged(*pages: Hives) -> tuple[Handler, list[dict[str, str]]]:
    """A handler that serves these pages in turn, and the queries that it has been asked."""
    asked: list[dict[str, str]] = []

    async def listed(request: Request) -> Hives:
        asked.append(dict(request.query_params))
        return pages[len(asked) - 1]

    return listed, asked


def test_a_list_is_read_page_by_page(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    one, two, three = (HIVE_VIEW._replace(id=name) for name in ("gpu1", "gpu2", "z-longer-name"))
    listed, asked = paged(Hives((one, two), "gpu2"), Hives((), "x"), Hives((three,)))

    ran = with_queen({QueenRoutes.HIVES: listed}, lambda: rbeectl("list-hives"))

    assert ran.code == 0
    assert [line.split()[0] for line in ran.out.splitlines()] == ["HIVE", "gpu1", "gpu2", "z-longer-name"]
    assert asked == [{"limit": "1000"}, {"limit": "1000", "after": "gpu2"}, {"limit": "1000", "after": "x"}]


def test_labels_are_selected_by_the_queen_and_again_for_one_who_cannot(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    other = HIVE_VIEW._replace(id="gpu1", labels=(Label("rack", "3"),))
    listed, asked = paged(Hives((HIVE_VIEW, other)))

    ran = with_queen({QueenRoutes.HIVES: listed}, lambda: rbeectl("list-hives", "-l", "rack=3", "--json"))

    assert [hive["id"] for hive in ran.json[0]["hives"]] == ["gpu1"]
    assert asked == [{"limit": "1000", "selector": "rack=3"}]


def test_pages_that_do_not_advance_are_an_error(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    listed, _ = paged(Hives((HIVE_VIEW,), "localhost"), Hives((HIVE_VIEW,), "localhost"))

    ran = with_queen({QueenRoutes.HIVES: listed}, lambda: rbeectl("list-devices"))

    assert (ran.code, ran.out) == (Unreachable.exit_code, "")
    assert "its next page begins at localhost, again" in ran.err


@pytest.mark.parametrize("verb", ["show", "status", "list-devices"])
def test_a_mistyped_hive_suggests_the_near_one(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, verb: str
) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl(verb, "lcoalhost"))

    assert (ran.code, ran.out) == (4, "")
    assert "hive 'lcoalhost' is not in the hive catalog; did you mean localhost?" in ran.err


MEMORY = Memory((Pool("ram", "RAM", 2**36, 2**35, 0, (Holder("worker", 2**33, "bee-1"),)),))


def remembering(memory: Memory) -> dict[Any, Handler]:
    async def answer(_request: Request) -> Memory:
        return memory

    return {QueenRoutes.MEMORY: answer}


def test_memory_is_listed_by_holder(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    queen = listing(HIVE_VIEW) | remembering(MEMORY)

    ran = with_queen(queen, lambda: rbeectl("list-devices", "--memory"))
    for_programs = with_queen(queen, lambda: rbeectl("list-devices", "-m", "--json"))
    shown = with_queen(queen, lambda: rbeectl("show", "localhost", "-p", "MemoryFree,MemoryHolders"))
    top = with_queen(queen, lambda: rbeectl("top", "-m", "-n", "1", "--json"))

    assert [line.split() for line in ran.out.splitlines()] == [
        ["HIVE", "POOL", "MEMORY", "KIND", "HOLDER", "USER", "PID"],
        ["localhost", "ram", "8.0", "GiB", "worker", "bee-1", "-", "-"],
        ["localhost", "ram", "32.0", "GiB", "free", "-", "-", "-"],
        ["localhost", "ram", "64.0", "GiB", "total", "RAM", "-", "-"],
    ]
    memory = encode(MEMORY)
    assert for_programs.json == [{"hives": [{"id": "localhost", "state": "online", "memory": memory}]}]
    assert shown.out == f"MemoryFree={2**35}\nMemoryHolders=worker bee-1: {2**33}\n"
    assert top.json[0]["hives"][0]["memory"] == memory


def test_a_hive_that_does_not_tell_its_memory_is_listed_all_the_same(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl("list-devices", "-m"))

    assert ran.code == 0
    assert "the hive does not answer" in ran.out
