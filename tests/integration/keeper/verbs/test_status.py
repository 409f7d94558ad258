"""The verb status, with a queen that is served."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from starlette.requests import Request

import rbee.keeper.verbs.status
from rbee.scope import QUEEN_UNIT
from rbee.wire.codec import encode
from rbee.wire.events import FeedEvent, FeedEvents
from rbee.wire.logs import LogQuery
from rbee.wire.routes import QueenRoutes
from tests.unit.keeper.doubles import AT, Rbeectl, WithQueen, listing
from tests.unit.played_systemd import INACTIVE, PlayedBus
from tests.unit.wire_values import HIVE_VIEW


def test_status_of_an_awake_queen_shows_her_words_and_the_hives(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl("status"))

    assert ran.code == 0
    assert "● queen-rbee.service - the queen is awake" in ran.out
    assert "Status: hives: 1 online, 0 suspect, 0 offline" in ran.out
    assert "Main PID: 4711" in ran.out
    assert ran.out.splitlines()[-1].startswith("localhost  online")
    assert "\033" not in ran.out


def test_status_is_json_for_programs(
    awake: PlayedBus, bus: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    up = with_queen(listing(HIVE_VIEW), lambda: rbeectl("status", "--json")).json[0]
    bus.states[QUEEN_UNIT] = INACTIVE
    down = rbeectl("status", "--json")

    assert (up["queen"]["state"], up["queen"]["main_pid"]) == ("awake", 4711)
    assert up["hives"] == [encode(HIVE_VIEW)]
    assert down.code == 3
    assert (down.json[0]["queen"]["state"], down.json[0]["hives"]) == ("asleep", None)


def test_the_status_of_a_hive_is_like_that_of_a_unit(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, log: list[Any]
) -> None:
    ran = with_queen(listing(HIVE_VIEW._replace(version="7.8")), lambda: rbeectl("status", "localhost"))

    lines = [line.strip() for line in ran.out.splitlines()]
    assert ran.code == 0
    assert lines[0] == "● localhost - bee hive"
    assert lines[1].startswith("State: online since ")
    assert "Reason: heartbeats received" in lines
    assert "Version: 7.8" in lines
    assert any(line.startswith("gpu0: NVIDIA GeForce RTX 4090, 24.0 GiB") for line in lines)
    assert lines[-2:] == ["Nov 23 12:00:00 rbee rbee-hive[7]: hello", "\\x1b[2J"]
    assert log == [(LogQuery(hive="localhost"), 10)]


def test_the_log_may_be_left_out(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, log: list[Any]
) -> None:
    assert (
        "hello" not in with_queen(listing(HIVE_VIEW), lambda: rbeectl("status", "localhost", "-n", "0")).out
    )
    assert log == []


def test_who_may_not_read_the_journal_sees_what_the_queen_keeps(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.keeper.verbs.status, "tail", lambda *_: [])
    asked: list[dict[str, str]] = []

    async def last_events(request: Request) -> FeedEvents:
        asked.append(dict(request.query_params))
        event = FeedEvent("a" * 16 + "-7", AT, "detected", "bee hive", 5, "Detected\x1b[2J", "localhost")
        return FeedEvents(event.id, (event,))

    queen = {**listing(HIVE_VIEW), QueenRoutes.LAST_EVENTS: last_events}
    ran = with_queen(queen, lambda: rbeectl("status", "localhost", "-n", "2000"))
    for_programs = with_queen(queen, lambda: rbeectl("status", "localhost", "--json"))

    at = datetime.fromisoformat(AT).astimezone()
    assert ran.out.splitlines()[-1] == f"{at:%b %d %H:%M:%S} bee hive: Detected\\x1b[2J"
    assert asked == [{"hive": "localhost", "limit": "1000"}, {"hive": "localhost", "limit": "10"}]
    assert len(for_programs.json[0]["log"]) == 1


@pytest.mark.parametrize("state", ["unknown", "pending", "suspect", "offline"])
def test_a_hive_that_is_not_online_exits_3(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, log: list[Any], state: Any
) -> None:
    hive = HIVE_VIEW._replace(state=state, reason="because")
    ran = with_queen(listing(hive), lambda: rbeectl("status", "localhost", "--json"))

    assert ran.code == 3
    assert ran.json[0]["hive"] == encode(hive)
    assert len(ran.json[0]["log"]) == 2
