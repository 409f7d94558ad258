"""Turning everything off."""

from __future__ import annotations

import asyncio
import threading

import pytest
from starlette.requests import Request
from starlette.responses import Response

import rbee.keeper.queen.shutdown
from rbee.errors import NotPermitted
from rbee.scope import FORGET_UNIT, HIVE_SOCKET_UNIT, HIVE_UNIT, QUEEN_SOCKET_UNIT, QUEEN_UNIT, TARGET
from rbee.systemd.unit import UnitState
from rbee.wire.codec import encode
from rbee.wire.jobs import Done, JobStarted
from rbee.wire.routes import QueenRoutes
from tests.unit.keeper.doubles import JOB, Bus, Ran, Rbeectl, WithQueen, has_no_queen, line, story
from tests.unit.played_systemd import ACTIVE, INACTIVE


def test_a_shutdown_without_a_queen_is_of_this_machine_s_hive(bus: Bus, rbeectl: Rbeectl) -> None:
    has_no_queen(bus, ACTIVE)

    assert rbeectl("shutdown") == Ran(0, "This machine's hive is off\n", "")
    assert bus.asked[0] == ("stop", TARGET)


GOODBYE = story(
    ("job", encode(JobStarted(None, JOB, ""))),
    line("queen bee", "Shutting down all hives", "shutting-down-hives"),
    line("bee hive", "Received shutdown signal, goodbye", "goodbye"),
    ("done", encode(Done(None))),
)


def test_a_shutdown_tells_the_story_and_returns_when_all_is_stopped(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen({QueenRoutes.SHUTDOWN: GOODBYE}, lambda: rbeectl("shutdown"))

    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "(bee keeper) Shutting down queen",
        "(queen bee)  Shutting down all hives",
        "(bee hive)   Received shutdown signal, goodbye",
        "Queen and hives are off",
    ]
    assert awake.asked == [("stop", TARGET), ("start", FORGET_UNIT)]


def test_an_asleep_queen_is_turned_off_without_waking_her(bus: Bus, rbeectl: Rbeectl) -> None:
    ran = rbeectl("shutdown")

    assert (ran.code, ran.out, ran.err) == (0, "Queen and hives are off\n", "")
    assert bus.asked == [("stop", TARGET), ("start", FORGET_UNIT)]
    assert bus.states[QUEEN_SOCKET_UNIT] == INACTIVE
    assert rbeectl("shutdown").code == 0, "shutting down twice is no error"


def test_a_queen_who_hangs_is_shut_down_all_the_same(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.keeper.queen.shutdown, "ANSWER_TIMEOUT", 0.05)
    goes_on = threading.Event()

    async def hang(_request: Request) -> Response:
        await asyncio.to_thread(goes_on.wait, 5)
        return await GOODBYE(_request)

    def work() -> Ran:
        ran = rbeectl("shutdown")
        goes_on.set()
        return ran

    ran = with_queen({QueenRoutes.SHUTDOWN: hang}, work)

    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == ["(bee keeper) Shutting down queen", "Queen and hives are off"]


def test_a_queen_whose_end_cuts_her_story_short_is_no_error(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    cut = story(line("queen bee", "Shutting down all hives", "shutting-down-hives"))

    ran = with_queen({QueenRoutes.SHUTDOWN: cut}, lambda: rbeectl("shutdown"))

    assert (ran.code, ran.err) == (0, "")


@pytest.mark.parametrize("unit", [QUEEN_UNIT, HIVE_UNIT, QUEEN_SOCKET_UNIT, HIVE_SOCKET_UNIT])
def test_a_unit_that_is_not_stopped_is_an_error(bus: Bus, rbeectl: Rbeectl, unit: str) -> None:
    bus.states[unit] = UnitState("loaded", "deactivating", "stop-sigterm")
    bus.unstoppable.add(unit)

    ran = rbeectl("shutdown")

    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines() == [
        f"rbeectl: {unit} is still deactivating",
        f"  try: systemctl status {unit}",
    ]


def test_who_may_not_shut_down_is_told_why(
    bus: Bus, rbeectl: Rbeectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.keeper.permission, "explain", lambda refusal: NotPermitted("explained"))
    bus.refusals["stop", TARGET] = NotPermitted("systemd does not let you do this")

    assert rbeectl("shutdown").code == 77
