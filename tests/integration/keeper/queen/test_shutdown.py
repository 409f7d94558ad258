"""Turning everything off, with a queen that is served."""

from __future__ import annotations

import asyncio
import threading

import pytest
from starlette.requests import Request
from starlette.responses import Response

import rbee.keeper.queen.shutdown
from rbee.scope import FORGET_UNIT, TARGET
from rbee.wire.codec import encode
from rbee.wire.jobs import Done, JobStarted
from rbee.wire.routes import QueenRoutes
from tests.unit.keeper.doubles import JOB, Ran, Rbeectl, WithQueen, line, story
from tests.unit.played_systemd import PlayedBus

GOODBYE = story(
    ("job", encode(JobStarted(None, JOB, ""))),
    line("queen bee", "Shutting down all hives", "shutting-down-hives"),
    line("bee hive", "Received shutdown signal, goodbye", "goodbye"),
    ("done", encode(Done(None))),
)


def test_a_shutdown_tells_the_story_and_returns_when_all_is_stopped(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
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


def test_a_queen_who_hangs_is_shut_down_all_the_same(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, monkeypatch: pytest.MonkeyPatch
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
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    cut = story(line("queen bee", "Shutting down all hives", "shutting-down-hives"))

    ran = with_queen({QueenRoutes.SHUTDOWN: cut}, lambda: rbeectl("shutdown"))

    assert (ran.code, ran.err) == (0, "")


def test_nothing_is_told_of_a_shutdown_that_is_over(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.keeper.queen.shutdown, "ANSWER_TIMEOUT", 0.05)
    is_over = threading.Event()
    threads: list[threading.Thread] = []

    async def late(request: Request) -> Response:
        threads.extend(one for one in threading.enumerate() if one.name == "story")
        await asyncio.to_thread(is_over.wait)
        return await GOODBYE(request)

    def work() -> Ran:
        ran = rbeectl("shutdown")
        is_over.set()
        for thread in threads:
            thread.join(5)
        return ran

    ran = with_queen({QueenRoutes.SHUTDOWN: late}, work)

    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == ["(bee keeper) Shutting down queen", "Queen and hives are off"]
