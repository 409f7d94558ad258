"""Adding, removing and listing hives."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request

from rbee.errors import HiveFailed, HiveNotOnline
from rbee.scope import QUEEN_UNIT
from rbee.server.app import Handler
from rbee.wire.codec import encode
from rbee.wire.hives import Label
from rbee.wire.jobs import Done
from rbee.wire.routes import QueenRoutes, Route
from rbee.wire.samples import Sample
from tests.unit.keeper.doubles import (
    ADDED,
    BEGUN,
    GIB,
    REMOTE,
    SAMPLE,
    Rbeectl,
    WithQueen,
    line,
    listing,
    sampling,
    story,
)
from tests.unit.played_systemd import PlayedBus
from tests.unit.wire_values import HIVE_VIEW


def test_adding_wakes_the_queen_tells_the_story_and_ends_with_the_devices(
    bus: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen({QueenRoutes.ADD_HIVE: ADDED}, lambda: rbeectl("add-hive", "localhost"))

    assert (ran.code, ran.err) == (0, "")
    *told, header, cpu, gpu = ran.out.splitlines()
    assert told == [
        "(bee keeper) queen is asleep, waking queen.",
        "(bee keeper) queen is awake and healthy.",
        "(bee keeper) Requesting queen to add localhost to hive catalog",
        "(queen bee)  Adding local pc to hive catalog.",
        "(bee hive)   Sending first heartbeat to queen",
        "Hive localhost is Online",
    ]
    assert header.split() == ["HIVE", "DEVICE", "NAME", "MEMORY", "DRIVER", "ADDRESS", "UUID"]
    assert (cpu.split()[:2], gpu.split()[:2]) == (["localhost", "cpu"], ["localhost", "gpu0"])
    assert bus.asked == [("start", QUEEN_UNIT)]


def test_adding_to_an_awake_queen_wakes_nobody(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen({QueenRoutes.ADD_HIVE: ADDED}, lambda: rbeectl("add-hive", "localhost"))

    assert ran.code == 0
    assert ran.out.splitlines()[0] == "(bee keeper) queen is awake and healthy."
    assert awake.asked == []


def test_removing_tells_its_story(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    removed = story(BEGUN, line("queen bee", "Removing localhost"), ("done", encode(Done(None))))

    ran = with_queen({QueenRoutes.REMOVE_HIVE: removed}, lambda: rbeectl("remove-hive", "localhost"))

    assert ran.code == 0
    assert ran.out.splitlines() == [
        "(bee keeper) queen is awake and healthy.",
        "(bee keeper) Requesting queen to remove localhost from hive catalog",
        "(queen bee)  Removing localhost",
        "Hive localhost is removed",
    ]


def test_removing_what_is_not_there_says_so_and_suggests_the_near_one(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    absent = story(BEGUN, ("done", encode(Done(None, was_there=False))))
    queen = {QueenRoutes.REMOVE_HIVE: absent, **listing(HIVE_VIEW)}

    told = with_queen(queen, lambda: rbeectl("remove-hive", "lcoalhost"))
    for_programs = with_queen(queen, lambda: rbeectl("remove-hive", "lcoalhost", "--json"))

    assert (told.code, for_programs.code) == (0, 0)
    assert told.out.endswith("Hive lcoalhost was not in the hive catalog; did you mean localhost?\n")
    assert for_programs.json[-1] == {"event": "done", "hive": None, "was_there": False}


def test_hives_are_listed(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl("list-hives"))

    header, row = ran.out.splitlines()
    assert ran.code == 0
    assert header.split()[:3] == ["HIVE", "STATE", "SINCE"]
    assert row.split()[:2] == ["localhost", "online"]


def test_an_empty_list_says_how_to_begin(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    for verb in ("list-hives", "list-devices"):
        ran = with_queen(listing(), lambda verb=verb: rbeectl(verb))
        assert (ran.code, ran.out) == (0, "No hives. Add this machine: rbeectl add-hive localhost\n")


def test_lists_are_json_for_programs(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    hives = with_queen(listing(HIVE_VIEW), lambda: rbeectl("list-hives", "--json"))
    devices = with_queen(listing(HIVE_VIEW), lambda: rbeectl("list-devices", "--json"))

    assert hives.json == [{"hives": [encode(HIVE_VIEW)]}]
    assert devices.json == [
        {
            "hives": [
                {"id": "localhost", "state": "online", "devices": encode(HIVE_VIEW.devices), "sample": None}
            ]
        }
    ]


def test_the_devices_of_one_hive_are_listed_and_an_unknown_one_is_told(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    other = HIVE_VIEW._replace(id="blade-7")
    one = with_queen(listing(HIVE_VIEW, other), lambda: rbeectl("list-devices", "blade-7"))
    none = with_queen(listing(HIVE_VIEW), lambda: rbeectl("list-devices", "nobody"))

    assert "blade-7" in one.out
    assert "localhost" not in one.out
    assert none.code == 4
    assert none.err.splitlines() == [
        "rbeectl: hive 'nobody' is not in the hive catalog",
        "  try: rbeectl list-hives",
    ]


def test_lists_take_a_selector(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    hives = listing(HIVE_VIEW, REMOTE._replace(labels=(Label("rack", "3"),)))

    ran = with_queen(hives, lambda: rbeectl("list-hives", "-l", "rack=3", "--no-legend"))
    assert [line.split()[0] for line in ran.out.splitlines()] == ["gpu1"]
    assert (
        with_queen(hives, lambda: rbeectl("list-hives", "-l", "rack=4")).out == "No hive has these labels\n"
    )
    assert (
        with_queen(hives, lambda: rbeectl("list-devices", "-l", "rack=4")).out == "No hive has these labels\n"
    )


@pytest.mark.parametrize(("options", "force"), [((), "0"), (("--force",), "1")], ids=["", "--force"])
def test_removing_says_to_the_queen_whether_it_is_by_force(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, options: tuple[str, ...], force: str
) -> None:
    asked: list[dict[str, str]] = []

    async def remove(request: Request) -> Any:
        asked.append(dict(request.query_params))
        return await story(BEGUN, ("done", encode(Done(None))))(request)

    handlers: dict[Route, Handler] = {QueenRoutes.REMOVE_HIVE: remove}
    told = with_queen(handlers, lambda: rbeectl("remove-hive", "gpu1", *options))
    read = with_queen(handlers, lambda: rbeectl("remove-hive", "gpu1", *options, "--json"))

    assert asked == [{"force": force}] * 2
    assert (told.code, told.out.splitlines()[-1]) == (0, "Hive gpu1 is removed")
    assert read.json[-1] == {"event": "done", "hive": None, "was_there": True}


def test_a_hive_that_cannot_be_told_is_kept_and_the_hint_is_force(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    refusal = HiveNotOnline("gpu1 cannot be told", hint="rbeectl remove-hive gpu1 --force")
    handlers = {QueenRoutes.REMOVE_HIVE: story(BEGUN, ("error", refusal.to_problem()))}
    ran = with_queen(handlers, lambda: rbeectl("remove-hive", "gpu1"))

    assert ran.code == HiveNotOnline.exit_code
    assert ran.err == "rbeectl: gpu1 cannot be told\n  try: rbeectl remove-hive gpu1 --force\n"


def test_list_devices_asks_what_they_do(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    queen = listing(HIVE_VIEW) | sampling(SAMPLE)

    told = with_queen(queen, lambda: rbeectl("list-devices"))
    for_programs = with_queen(queen, lambda: rbeectl("list-devices", "--json"))
    shown = with_queen(
        queen, lambda: rbeectl("show", "localhost", "-p", "CPUPercent,GPU0MemoryUsed,MemoryUsed")
    )

    assert "42%" in told.out
    assert for_programs.json[0]["hives"][0]["sample"] == encode(SAMPLE)
    assert shown.out == f"CPUPercent=42.4\nGPU0MemoryUsed={22 * GIB}\nMemoryUsed={128 * GIB}\n"


def test_a_hive_that_does_not_tell_is_listed_all_the_same(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    queen = listing(HIVE_VIEW) | sampling(HiveFailed("it hangs"))

    ran = with_queen(queen, lambda: rbeectl("list-devices", "--json"))

    assert ran.code == 0
    assert ran.json[0]["hives"][0]["sample"] is None


def test_the_hives_of_a_fleet_are_asked_at_once(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    async def handler(request: Request) -> Sample:
        return SAMPLE._replace(hive_id=request.path_params["hive_id"])

    hives = [HIVE_VIEW._replace(id=f"blade{number}") for number in range(40)]
    queen = listing(*hives, HIVE_VIEW._replace(id="away", state="offline")) | {QueenRoutes.SAMPLE: handler}

    told = with_queen(queen, lambda: rbeectl("list-devices", "--json")).json[0]["hives"]

    assert [hive["sample"] is not None for hive in told] == [True] * 40 + [False]
