"""A job of the queen's, and its story to the end."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

import rbee.keeper.session
from rbee.errors import HiveFailed, TimedOut, UnknownHost, Unreachable
from rbee.scope import QUEEN_SOCKET_UNIT, QUEEN_UNIT
from rbee.server.app import Handler
from rbee.server.responses import event_stream
from rbee.wire.codec import encode
from rbee.wire.jobs import Done, JobStarted
from rbee.wire.lines import Line
from rbee.wire.routes import QueenRoutes, Route
from tests.unit.keeper.doubles import ADDED, AT, BEGUN, FAILURE, JOB, Rbeectl, WithQueen, line, story
from tests.unit.played_systemd import INACTIVE, PlayedBus
from tests.unit.wire_values import HIVE_VIEW


def test_a_timeout_bounds_the_story_and_names_the_job_that_goes_on(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield f"id: 0\nevent: job\ndata: {json.dumps(BEGUN[1])}\n\n".encode()
        while True:  # a comment now and then says that the queen lives
            yield b": still here\n\n"
            await asyncio.sleep(0.05)

    async def handler(_request: Request) -> Response:
        return event_stream(chunks())

    ran = with_queen(
        {QueenRoutes.ADD_HIVE: handler}, lambda: rbeectl("add-hive", "localhost", "--timeout", "300ms")
    )

    assert ran.code == TimedOut.exit_code
    assert ran.err == (
        f"rbeectl: it was not done within the 0.3 s of --timeout; job {JOB} continues\n"
        f"  try: rbeectl logs -f --job {JOB}\n"
    )


@pytest.mark.parametrize(
    "told",
    [
        [("job", {})],
        [("job", {"job_id": 7, "hive_id": None, "events": ""})],
        [BEGUN, ("line", {"text": "hello"})],
        [BEGUN, ("line", {"speaker": "me", "text": "", "event": "adding", "at": AT})],
        [BEGUN, ("done", {})],
        [BEGUN, ("done", {"hive": {"id": "\x1b[2J"}})],
    ],
)
def test_a_story_that_is_not_as_agreed_is_the_queen_s_fault(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, told: list[tuple[str, Any]]
) -> None:
    ran = with_queen({QueenRoutes.ADD_HIVE: story(*told)}, lambda: rbeectl("add-hive", "localhost"))

    assert ran.code == Unreachable.exit_code
    assert ran.err.startswith("rbeectl: an event of the job's story is not valid: ")


def test_a_program_reads_the_story_as_json_lines(
    bus: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen({QueenRoutes.ADD_HIVE: ADDED}, lambda: rbeectl("add-hive", "localhost", "--json"))

    assert (ran.code, ran.err) == (0, "")
    assert [told["event"] for told in ran.json] == ["line"] * 3 + ["job", "line", "line", "done"]
    assert [told["kind"] for told in ran.json[:3]] == ["queen-asleep", "queen-awake", "requesting"]
    assert ran.json[4] == {
        "event": "line",
        "kind": "adding",
        "speaker": "queen bee",
        "text": "Adding local pc to hive catalog.",
        "at": AT,
    }
    assert ran.json[-1]["hive"] == encode(HIVE_VIEW)


def test_a_story_that_ends_in_an_error_is_an_error_with_its_hint_on_stderr(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen({QueenRoutes.ADD_HIVE: FAILURE}, lambda: rbeectl("add-hive", "localhost"))

    assert ran.code == HiveFailed.exit_code
    assert ran.out.splitlines()[-1] == "(queen bee)  Adding local pc to hive catalog."
    assert ran.err == (
        "rbeectl: the beehive localhost did not tell its devices\n"
        "  try: systemctl status rbee-hive\n"
        "  try: then again\n"
    )


def test_a_refusal_of_the_queen_keeps_its_exit_code(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    async def refuse(_request: Request) -> Response:
        raise UnknownHost("host 'localhost' is not known: \x1b[31mnobody can be added")

    ran = with_queen({QueenRoutes.ADD_HIVE: refuse}, lambda: rbeectl("add-hive", "localhost"))

    assert ran.code == 2
    assert ran.err == "rbeectl: host 'localhost' is not known: \\x1b[31mnobody can be added\n"


CUT = story(BEGUN, line("queen bee", "Adding local pc to hive catalog."))

REMOVED = story(("job", encode(JobStarted("localhost", JOB, ""))), ("done", encode(Done(None))))


def one_after_the_other(*handlers: Handler) -> Handler:
    """A handler that is another one at each request."""
    waiting = list(handlers)

    async def handler(request: Request) -> Response:
        return await waiting.pop(0)(request)

    return handler


@pytest.mark.parametrize(
    ("route", "verb", "ends"),
    [(QueenRoutes.ADD_HIVE, "add-hive", ADDED), (QueenRoutes.REMOVE_HIVE, "remove-hive", REMOVED)],
)
def test_a_queen_who_dies_in_the_middle_is_asked_again_when_she_is_back(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, route: Route, verb: str, ends: Handler
) -> None:
    ran = with_queen({route: one_after_the_other(CUT, ends)}, lambda: rbeectl(verb, "localhost"))

    assert (ran.code, ran.err) == (0, "")
    told = ran.out.splitlines()
    died = told.index("(bee keeper) the queen died, waiting for systemd to bring her back.")
    assert told[died - 1] == "(queen bee)  Adding local pc to hive catalog."
    assert told[died + 1] == "(bee keeper) the queen is back, asking her again."
    assert awake.asked == [("start unless stopping", QUEEN_UNIT)]


def test_a_queen_who_dies_twice_is_not_asked_a_third_time(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    dies = one_after_the_other(CUT, CUT, ADDED)

    ran = with_queen({QueenRoutes.ADD_HIVE: dies}, lambda: rbeectl("add-hive", "localhost"))

    assert ran.code == Unreachable.exit_code
    assert "the queen disconnected in the middle of the story" in ran.err


def test_a_queen_who_is_not_back_in_time_is_said_not_to_be(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    awake.refusals["start unless stopping", QUEEN_UNIT] = TimedOut(
        "queen-rbee.service was not done after 2 s"
    )

    ran = with_queen({QueenRoutes.ADD_HIVE: CUT}, lambda: rbeectl("add-hive", "localhost"))

    assert ran.code == Unreachable.exit_code
    assert "the queen died, and was not back within 2 s" in ran.err


def test_a_queen_who_was_turned_off_in_the_middle_is_not_woken_again(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    async def turned_off(request: Request) -> Response:
        awake.states[QUEEN_UNIT] = awake.states[QUEEN_SOCKET_UNIT] = INACTIVE
        return await CUT(request)

    ran = with_queen({QueenRoutes.ADD_HIVE: turned_off}, lambda: rbeectl("add-hive", "localhost"))

    assert ran.code == Unreachable.exit_code
    assert awake.asked == []


def test_ctrl_c_leaves_the_job_and_exits_130_with_its_id(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = rbee.keeper.session.Terminal.relay

    def interrupted(self: Any, told: Line) -> None:
        relay(self, told)
        if told.speaker == "queen bee":
            raise KeyboardInterrupt

    monkeypatch.setattr(rbee.keeper.session.Terminal, "relay", interrupted)

    ran = with_queen({QueenRoutes.ADD_HIVE: ADDED}, lambda: rbeectl("add-hive", "localhost"))

    assert ran.code == 130
    assert ran.err == (f"rbeectl: interrupted; job {JOB} continues\n  try: rbeectl logs -f --job {JOB}\n")


def test_ctrl_c_before_the_queen_answered_names_no_job(
    awake: PlayedBus, rbeectl: Rbeectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_arguments: Any, **_named: Any) -> Iterator[Any]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(rbee.keeper.session.QueenClient, "tell_story", interrupted)

    ran = rbeectl("add-hive", "localhost")

    assert ran.code == 130
    assert "None" not in ran.err
