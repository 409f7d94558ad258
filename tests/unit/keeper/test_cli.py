"""rbeectl as a person or a program meets it: words, streams and exit codes.

systemd is played at the edge; the queen answers on a real socket with the product's own server.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import pytest
from starlette.requests import Request
from starlette.responses import Response

import rbee.keeper.__main__
import rbee.keeper.cli
import rbee.keeper.hives
import rbee.keeper.queen.queen
import rbee.keeper.queen.shutdown
import rbee.keeper.queen.sleep
import rbee.keeper.queen.wake
import rbee.keeper.session
from rbee import __version__
from rbee.contracts import CatalogReport, Done, Hives, JobStarted, Line, QueenRoutes, Route, encode
from rbee.errors import HiveFailed, NotPermitted, RbeeError, TimedOut, UnitFailed, UnknownHost, Unreachable
from rbee.keeper.cli import cli
from rbee.keeper.local_hive import JOIN
from rbee.keeper.output import tables
from rbee.keeper.session import Session
from rbee.narration import Event
from rbee.scope import (
    FORGET_UNIT,
    HIVE_SOCKET_UNIT,
    HIVE_UNIT,
    QUEEN_SOCKET_UNIT,
    QUEEN_UNIT,
    REDIAL_UNIT,
    TARGET,
    TCP_SOCKET_UNIT,
)
from rbee.server.app import Handler
from rbee.server.responses import event_stream
from rbee.systemd.unit import UnitState
from tests.unit.keeper.doubles import (
    ADDED,
    AT,
    BEGUN,
    JOB,
    LISTENING,
    REPOSITORY,
    Bus,
    Ran,
    Rbeectl,
    WithQueen,
    line,
    listing,
    story,
)
from tests.unit.played_systemd import ACTIVATING, ACTIVE, INACTIVE, KILLED, NOT_FOUND
from tests.unit.shapes import HIVE_VIEW

# Usage


def test_help_and_version_need_neither_systemd_nor_a_queen(bus: Bus, rbeectl: Rbeectl) -> None:
    assert rbeectl("--version") == Ran(0, f"rbeectl {__version__}\n", "")
    for arguments in (["--help"], ["-h"], ["add-hive", "--help"], ["status", "-h"]):
        ran = rbeectl(*arguments)
        assert ran.code == 0
        assert ran.out.startswith("Usage: rbeectl")
    assert bus.opened == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["/fly"],
        ["--fly"],
        ["add-hive"],
        ["add-hive", "localhost", "too-many"],
        ["add-hive", "localhost", "--port"],
        ["add-hive", "localhost", "--port", "many"],
        ["remove-hive"],
        ["list-hives", "x"],
        ["status", "--yaml"],
    ],
    ids=" ".join,
)
def test_a_usage_error_exits_2_and_says_on_stderr_what_is_wrong(
    bus: Bus, rbeectl: Rbeectl, arguments: list[str]
) -> None:
    ran = rbeectl(*arguments)

    assert (ran.code, ran.out) == (2, "")
    assert "Error: " in ran.err
    assert bus.opened == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--json", "fly"],
        ["fly", "--json"],
        ["add-hive", "--json"],
        ["--json", "remove-hive"],
        ["list-hives", "--timeout=soon", "--json"],
        ["status", "--yaml", "--json"],
        ["catalog", "fly", "--json"],
        ["catalog", "backup", "-", "--json"],
    ],
    ids=" ".join,
)
def test_a_program_reads_of_a_usage_error_in_an_event_too(
    bus: Bus, rbeectl: Rbeectl, arguments: list[str]
) -> None:
    ran = rbeectl(*arguments)

    assert (ran.code, ran.err) == (2, "")
    (event,) = ran.json
    assert (event["event"], event["type"]) == ("error", "urn:rbee:problem:bad-input")
    assert event["hint"].startswith("rbeectl ")
    assert event["hint"].endswith(" --help")


def test_behind_two_dashes_nothing_asks_for_json(bus: Bus, rbeectl: Rbeectl) -> None:
    ran = rbeectl("remove-hive", "a", "--", "--json")

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Usage: ")


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("list-hvies", "list-hives"),
        ("listhives", "list-hives"),
        ("shutdwon", "shutdown"),
        ("Doctor", "doctor"),
        ("list", "list-hives or list-devices?"),
        ("hive", "add-hive or remove-hive?"),
        ("devices", "list-devices?"),
        ("stat", "status?"),
    ],
)
def test_a_verb_that_was_mistyped_suggests_the_near_one(rbeectl: Rbeectl, typed: str, meant: str) -> None:
    ran = rbeectl(typed)

    assert ran.code == 2
    assert f"No such command '{typed}'; did you mean {meant}" in ran.err


@pytest.mark.parametrize("verb", [[], ["add-hive"], ["catalog"], ["token", "create"]], ids=" ".join)
def test_help_is_a_verb_too(rbeectl: Rbeectl, verb: list[str]) -> None:
    ran = rbeectl("help", *verb)

    assert (ran.code, ran.err) == (0, "")
    assert ran.out == rbeectl(*verb, "--help").out
    assert rbeectl("help", "--json", *verb).json == [{"text": ran.out.removesuffix("\n")}]


@pytest.mark.parametrize(
    ("verb", "told"),
    [
        (["list"], "No such command 'list'; did you mean list-hives or list-devices?"),
        (["token", "creat"], "No such command 'creat'; did you mean create?"),
        (["wake", "up"], "'wake' has no verbs, and no help of 'up'"),
    ],
    ids=lambda one: one if isinstance(one, str) else " ".join(one),
)
def test_the_help_of_a_verb_that_was_mistyped_suggests_too(
    rbeectl: Rbeectl, verb: list[str], told: str
) -> None:
    ran = rbeectl("help", *verb)

    assert (ran.code, ran.out) == (2, "")
    assert told in ran.err


def test_a_verb_of_a_group_that_was_mistyped_suggests_the_near_one(rbeectl: Rbeectl) -> None:
    ran = rbeectl("catalog", "chekc")

    assert ran.code == 2
    assert "No such command 'chekc'; did you mean check?" in ran.err


def test_a_verb_like_no_other_suggests_none(rbeectl: Rbeectl) -> None:
    assert "did you mean" not in rbeectl("xyzzy").err


@pytest.mark.parametrize("arguments", [["--json", "list-hives"], ["list-hives", "--json"]], ids=" ".join)
def test_an_option_may_stand_before_the_verb_and_after_it(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, arguments: list[str]
) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl(*arguments))

    assert (ran.code, ran.json) == (0, [encode(Hives((HIVE_VIEW,)))])


@pytest.mark.parametrize("span", ["0", "-1", "soon", "", "5 bananas"])
def test_a_timeout_that_is_none_is_a_usage_error(bus: Bus, rbeectl: Rbeectl, span: str) -> None:
    ran = rbeectl("add-hive", "localhost", f"--timeout={span}")

    assert (ran.code, ran.out) == (2, "")
    assert "--timeout" in ran.err
    assert bus.asked == []


def test_a_timeout_bounds_the_story_and_names_the_job_that_goes_on(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
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
        f"rbeectl: it was not done within the 0.3 s of --timeout; job {JOB} goes on\n"
        f"  try: sudo rbeectl logs -f --job {JOB}\n"
    )


@pytest.mark.parametrize(
    ("verb", "route"), [("add-hive", QueenRoutes.ADD_HIVE), ("remove-hive", QueenRoutes.REMOVE_HIVE)]
)
def test_without_waiting_the_job_is_named_and_goes_on(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, verb: str, route: Route
) -> None:
    started = JobStarted("localhost", JOB, f"/v1/jobs/{JOB}/events")

    async def begin(request: Request) -> JobStarted:
        assert "text/event-stream" not in request.headers["accept"]
        return started

    told = with_queen({route: begin}, lambda: rbeectl(verb, "localhost", "--no-wait"))
    for_programs = with_queen({route: begin}, lambda: rbeectl(verb, "localhost", "--no-wait", "--json"))

    assert told.code == for_programs.code == 0
    assert told.out.endswith(f"Job {JOB} goes on; follow it: sudo rbeectl logs -f --job {JOB}\n")
    assert for_programs.json[-1] == {"event": "job", **encode(started)}


def test_quiet_says_nothing_but_errors(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    assert with_queen({QueenRoutes.ADD_HIVE: ADDED}, lambda: rbeectl("-q", "add-hive", "localhost")) == Ran(
        0, "", ""
    )
    assert with_queen(listing(HIVE_VIEW), lambda: rbeectl("list-hives", "-q")) == Ran(0, "", "")
    failed = with_queen(listing(), lambda: rbeectl("list-devices", "nowhere", "-q"))
    assert (failed.code, failed.out) == (4, "")
    assert failed.err


NAMES = ("\x1b[2J", "a\nb", "\u202egnp.exe", "\x9b31m", "\udcff", "\x7f")
"""What would clear a screen, forge a line, turn text around, or is no Unicode."""


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize(
    "arguments",
    [
        ["add-hive", "{}"],
        ["add-hive", "localhost", "{}"],
        ["add-hive", "localhost", "--port", "{}"],
        ["add-hive", "localhost", "--{}"],
        ["add-hive", "localhost", "-{}"],
        ["remove-hive", "{}"],
        ["list-devices", "{}"],
        ["{}"],
        ["--{}"],
        ["--debug", "add-hive", "{}"],
        ["--debug", "list-devices", "{}"],
        ["list-hives", "--json={}"],
    ],
    ids=" ".join,
)
def test_a_name_that_could_steer_the_terminal_is_never_shown_raw(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, arguments: list[str], name: str
) -> None:
    async def refuse(_request: Request) -> Response:
        raise UnknownHost(f"host '{name}' is not known", hint=name.replace("\n", ""))

    ran = with_queen(
        {QueenRoutes.ADD_HIVE: refuse}, lambda: rbeectl(*(one.format(name) for one in arguments))
    )

    assert ran.code == 2
    assert (ran.out + ran.err).strip()
    assert all(line.isprintable() for line in (ran.out + ran.err).split("\n"))
    # A line that the name would have forged.
    assert not any(line.startswith("b") for line in (ran.out + ran.err).split("\n"))


@pytest.mark.parametrize("verb", ["add-hive", "remove-hive", "list-devices"])
def test_a_name_of_64_kilobytes_is_refused_without_being_repeated(
    awake: Bus, rbeectl: Rbeectl, verb: str
) -> None:
    ran = rbeectl(verb, "x" * 65536)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.endswith("must have 1 to 253 characters, and has 65536\n")
    assert len(ran.err) < 100


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
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, told: list[tuple[str, Any]]
) -> None:
    ran = with_queen({QueenRoutes.ADD_HIVE: story(*told)}, lambda: rbeectl("add-hive", "localhost"))

    assert ran.code == Unreachable.exit_code
    assert ran.err.startswith("rbeectl: an event of the story is not as agreed: ")


@pytest.mark.parametrize("port", ["0", "-1", "65536", "99999999999999999999"])
def test_a_port_that_is_none_is_refused_before_any_unit_is_started(
    bus: Bus, rbeectl: Rbeectl, port: str
) -> None:
    ran = rbeectl("add-hive", "localhost", "--port", port)

    assert (ran.code, ran.out) == (2, "")
    assert "port must be from 1 to 65535" in ran.err
    assert bus.asked == []


@pytest.mark.parametrize("host", ["", "x" * 254])
def test_a_host_that_is_none_is_refused_before_any_unit_is_started(
    bus: Bus, rbeectl: Rbeectl, host: str
) -> None:
    ran = rbeectl("add-hive", host)

    assert (ran.code, ran.out) == (2, "")
    assert "HOST must have 1 to 253 characters" in ran.err
    assert bus.asked == []


@pytest.mark.parametrize("hive", ["", "a b", "..", "x" * 254])
def test_a_hive_that_cannot_be_is_not_worth_waking_the_queen(bus: Bus, rbeectl: Rbeectl, hive: str) -> None:
    ran = rbeectl("remove-hive", hive)

    assert (ran.code, ran.out) == (2, "")
    assert bus.asked == []


# Verbs that wake


def test_adding_wakes_the_queen_tells_the_story_and_ends_with_the_devices(
    bus: Bus, rbeectl: Rbeectl, with_queen: WithQueen
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


def test_adding_to_an_awake_queen_wakes_nobody(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    ran = with_queen({QueenRoutes.ADD_HIVE: ADDED}, lambda: rbeectl("add-hive", "localhost"))

    assert ran.code == 0
    assert ran.out.splitlines()[0] == "(bee keeper) queen is awake and healthy."
    assert awake.asked == []


def test_a_program_reads_the_story_as_json_lines(bus: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
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


FAILED = HiveFailed(
    "the beehive localhost did not tell its devices", hint="systemctl status rbee-hive\nthen again"
)
FAILURE = story(BEGUN, line("queen bee", "Adding local pc to hive catalog."), ("error", FAILED.to_problem()))


def test_a_story_that_ends_in_an_error_is_an_error_with_its_hint_on_stderr(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen({QueenRoutes.ADD_HIVE: FAILURE}, lambda: rbeectl("add-hive", "localhost"))

    assert ran.code == HiveFailed.exit_code
    assert ran.out.splitlines()[-1] == "(queen bee)  Adding local pc to hive catalog."
    assert ran.err == (
        "rbeectl: the beehive localhost did not tell its devices\n"
        "  try: systemctl status rbee-hive\n"
        "  try: then again\n"
    )


def test_for_a_program_the_error_is_json_on_stdout(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen({QueenRoutes.ADD_HIVE: FAILURE}, lambda: rbeectl("add-hive", "localhost", "--json"))

    assert (ran.code, ran.err) == (1, "")
    assert ran.json[-1] == {"event": "error", **FAILED.to_problem()}


def test_a_refusal_of_the_queen_keeps_its_exit_code(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
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
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, route: Route, verb: str, ends: Handler
) -> None:
    ran = with_queen({route: one_after_the_other(CUT, ends)}, lambda: rbeectl(verb, "localhost"))

    assert (ran.code, ran.err) == (0, "")
    told = ran.out.splitlines()
    died = told.index("(bee keeper) the queen died, waiting for systemd to bring her back.")
    assert told[died - 1] == "(queen bee)  Adding local pc to hive catalog."
    assert told[died + 1] == "(bee keeper) the queen is back, asking her again."
    assert awake.asked == [("start unless stopping", QUEEN_UNIT)]


def test_a_queen_who_dies_twice_is_not_asked_a_third_time(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    dies = one_after_the_other(CUT, CUT, ADDED)

    ran = with_queen({QueenRoutes.ADD_HIVE: dies}, lambda: rbeectl("add-hive", "localhost"))

    assert ran.code == Unreachable.exit_code
    assert "the queen went in the middle of the story" in ran.err


def test_a_queen_who_is_not_back_in_time_is_said_not_to_be(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    awake.refusals["start unless stopping", QUEEN_UNIT] = TimedOut(
        "queen-rbee.service was not done after 2 s"
    )

    ran = with_queen({QueenRoutes.ADD_HIVE: CUT}, lambda: rbeectl("add-hive", "localhost"))

    assert ran.code == Unreachable.exit_code
    assert "the queen died, and was not back within 2 s" in ran.err


def test_a_queen_who_was_turned_off_in_the_middle_is_not_woken_again(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    async def turned_off(request: Request) -> Response:
        awake.states[QUEEN_UNIT] = awake.states[QUEEN_SOCKET_UNIT] = INACTIVE
        return await CUT(request)

    ran = with_queen({QueenRoutes.ADD_HIVE: turned_off}, lambda: rbeectl("add-hive", "localhost"))

    assert ran.code == Unreachable.exit_code
    assert awake.asked == []


def test_what_failed_before_is_reset_before_it_is_started(
    bus: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    worn_out = UnitState("loaded", "failed", "failed", result="start-limit-hit")
    bus.states[QUEEN_UNIT] = bus.states[QUEEN_SOCKET_UNIT] = worn_out

    ran = with_queen({QueenRoutes.ADD_HIVE: ADDED}, lambda: rbeectl("add-hive", "localhost"))

    assert ran.code == 0, ran.err
    assert bus.asked == [
        ("reset-failed", QUEEN_UNIT), ("reset-failed", QUEEN_SOCKET_UNIT), ("start", QUEEN_UNIT),
    ]  # fmt: skip


@pytest.mark.parametrize("hive", [None, replace(HIVE_VIEW, state="offline")], ids=["none", "offline"])
def test_exit_0_means_that_the_hive_is_online(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, hive: Any
) -> None:
    done = story(BEGUN, ("done", encode(Done(hive))))

    ran = with_queen({QueenRoutes.ADD_HIVE: done}, lambda: rbeectl("add-hive", "localhost"))

    assert ran.code == 1
    assert "localhost is not online" in ran.err
    assert "Online" not in ran.out


def test_a_queen_who_cannot_be_woken_is_told_with_her_own_words_and_the_journal_s(
    bus: Bus, rbeectl: Rbeectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.refusals["start", QUEEN_UNIT] = UnitFailed(
        "queen-rbee.service did not start: it said: it is damaged", hint="mv it"
    )
    monkeypatch.setattr(
        rbee.keeper.queen.wake, "journal_tail", lambda *matches: [f"{matches[-1]} says", "\x1b[2J"]
    )

    ran = rbeectl("add-hive", "localhost")

    assert (ran.code, ran.out) == (1, "(bee keeper) queen is asleep, waking queen.\n")
    assert ran.err.splitlines() == [
        "rbeectl: queen-rbee.service did not start: it said: it is damaged",
        "  journal: queen-rbee.service says",
        "  journal: \\x1b[2J",
        "  try: mv it",
    ]


def test_a_queen_who_dies_while_she_is_woken_is_awaited_once_more(
    bus: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    bus.refusals["start", QUEEN_UNIT] = UnitFailed("queen-rbee.service did not start: its result is 'signal'")
    bus.after["start", QUEEN_UNIT] = KILLED

    ran = with_queen({QueenRoutes.ADD_HIVE: ADDED}, lambda: rbeectl("add-hive", "localhost"))

    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[:3] == [
        "(bee keeper) queen is asleep, waking queen.",
        "(bee keeper) the queen died, waiting for systemd to bring her back.",
        "(bee keeper) queen is awake and healthy.",
    ]
    assert bus.asked == [("start", QUEEN_UNIT), ("start unless stopping", QUEEN_UNIT)]


def test_a_queen_who_dies_again_and_again_while_she_is_woken_is_said_to(bus: Bus, rbeectl: Rbeectl) -> None:
    bus.refusals["start", QUEEN_UNIT] = UnitFailed("queen-rbee.service did not start: its result is 'signal'")
    bus.refusals["start unless stopping", QUEEN_UNIT] = TimedOut("it was not done after 2 s")
    bus.after["start", QUEEN_UNIT] = KILLED

    ran = rbeectl("add-hive", "localhost")

    assert ran.code == 1
    assert "did not start: its result is 'signal'" in ran.err


UNUSABLE = UnitState(
    "loaded", "failed", "failed", result="exit-code", exit_status=78,
    status_text="rbee.conf: soon is no span; try: mend it",
)  # fmt: skip


@pytest.mark.parametrize("result", ["exit-code", "start-limit-hit"])
def test_who_looks_is_told_each_time_why_a_queen_cannot_run(bus: Bus, rbeectl: Rbeectl, result: str) -> None:
    bus.states[QUEEN_UNIT] = replace(UNUSABLE, result=result)

    for verb in (["list-hives"], ["catalog", "backup", "/tmp/x"]):
        assert rbeectl(*verb) == Ran(
            78, "", "rbeectl: the queen has failed: rbee.conf: soon is no span\n  try: mend it\n"
        )


def test_a_queen_who_cannot_run_says_so_though_her_clients_have_her_started_again(
    bus: Bus, rbeectl: Rbeectl
) -> None:
    bus.refusals["start", QUEEN_UNIT] = UnitFailed("queen-rbee.service did not start")
    bus.after["start", QUEEN_UNIT] = UnitState("loaded", "activating", "start")
    bus.comes_to[QUEEN_UNIT] = replace(UNUSABLE, active="deactivating", sub="stop-post")

    ran = rbeectl("wake")

    assert (ran.code, ran.err.splitlines()[1]) == (78, "  try: mend it")
    assert "the queen died" not in ran.out


@pytest.mark.parametrize("by", ["bus", "socket"])
def test_who_is_refused_hears_the_same_whoever_refused(
    bus: Bus, rbeectl: Rbeectl, with_queen: WithQueen, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setattr(
        rbee.keeper.permission, "explain", lambda refusal: NotPermitted("explained", hint="newgrp rbee")
    )

    async def refuse(_request: Request) -> Response:
        raise NotPermitted("not you")

    if by == "bus":
        bus.refusals["start", QUEEN_UNIT] = NotPermitted("systemd does not let you do this")
    ran = with_queen({QueenRoutes.ADD_HIVE: refuse}, lambda: rbeectl("add-hive", "localhost"))

    assert (ran.code, ran.err) == (77, "rbeectl: explained\n  try: newgrp rbee\n")


def test_removing_tells_its_story(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
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
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    absent = story(BEGUN, ("done", encode(Done(None, was_there=False))))
    queen = {QueenRoutes.REMOVE_HIVE: absent, **listing(HIVE_VIEW)}

    told = with_queen(queen, lambda: rbeectl("remove-hive", "lcoalhost"))
    for_programs = with_queen(queen, lambda: rbeectl("remove-hive", "lcoalhost", "--json"))

    assert (told.code, for_programs.code) == (0, 0)
    assert told.out.endswith("Hive lcoalhost was not in the hive catalog; did you mean localhost?\n")
    assert for_programs.json[-1] == {"event": "done", "hive": None, "was_there": False}


# Ctrl-C


def test_ctrl_c_leaves_the_job_and_exits_130_with_its_id(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = rbee.keeper.session.Terminal.relay

    def interrupted(self: Any, told: Line) -> None:
        relay(self, told)
        if told.speaker == "queen bee":
            raise KeyboardInterrupt

    monkeypatch.setattr(rbee.keeper.session.Terminal, "relay", interrupted)

    ran = with_queen({QueenRoutes.ADD_HIVE: ADDED}, lambda: rbeectl("add-hive", "localhost"))

    assert ran.code == 130
    assert ran.err == (f"rbeectl: interrupted; job {JOB} goes on\n  try: sudo rbeectl logs -f --job {JOB}\n")


def test_ctrl_c_before_the_queen_answered_names_no_job(
    awake: Bus, rbeectl: Rbeectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_arguments: Any, **_named: Any) -> Iterator[Any]:
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(rbee.keeper.session.QueenClient, "tell_story", interrupted)

    ran = rbeectl("add-hive", "localhost")

    assert ran.code == 130
    assert "None" not in ran.err


def test_ctrl_c_anywhere_else_exits_130_too(
    bus: Bus, rbeectl: Rbeectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(unit: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(bus, "active_state", interrupted)

    ran = rbeectl("list-hives")

    assert (ran.code, ran.out.strip()) == (130, "")
    assert "Traceback" not in ran.err


# Verbs that never wake


@pytest.mark.parametrize("verb", ["list-hives", "list-devices"])
@pytest.mark.parametrize(
    ("queen", "listening", "word"),
    [
        (INACTIVE, LISTENING, "asleep"),
        (INACTIVE, INACTIVE, "off"),
        (UnitState("loaded", "failed", "failed", result="signal"), LISTENING, "failed"),
        (UnitState("loaded", "activating", "start"), LISTENING, "waking"),
        (UnitState("loaded", "deactivating", "stop-sigterm"), LISTENING, "stopping"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_looking_wakes_nobody_and_says_how_the_queen_is(
    bus: Bus, rbeectl: Rbeectl, queen: UnitState, listening: UnitState, word: str, verb: str
) -> None:
    bus.states |= {QUEEN_UNIT: queen, QUEEN_SOCKET_UNIT: listening}

    ran = rbeectl(verb)

    assert (ran.code, ran.out) == (3, "")
    assert ran.err.splitlines() == [
        {
            "failed": "rbeectl: the queen has failed: signal; looking does not wake her",
        }.get(word, f"rbeectl: the queen is {word}; looking does not wake her"),
        {
            "failed": "  try: sudo rbeectl doctor",
            "waking": "  try: Ask again in a moment.",
            "stopping": "  try: rbeectl wake, once she has stopped",
        }.get(word, "  try: rbeectl wake"),
    ]
    assert bus.asked == []


def has_no_queen(bus: Bus, hive: UnitState, redial: UnitState = INACTIVE) -> None:
    bus.states |= {QUEEN_UNIT: NOT_FOUND, QUEEN_SOCKET_UNIT: NOT_FOUND, TCP_SOCKET_UNIT: NOT_FOUND}
    bus.states |= {HIVE_UNIT: hive, REDIAL_UNIT: redial, FORGET_UNIT: NOT_FOUND}


QUEENS = (
    ["add-hive", "localhost"], ["add-hive", "gpu1"], ["remove-hive", "gpu1"],
    ["list-hives"], ["list-devices"], ["show", "gpu1"], ["label", "gpu1", "a=b"],
    ["cordon", "gpu1", "why"], ["uncordon", "gpu1"],
    ["tcp", "enable"], ["tcp", "disable"], ["tcp", "status"], ["token", "create"], ["token", "list"],
    ["token", "revoke", "0123abcd"], ["wake"], ["wake", "--no-wait"], ["sleep"], ["status", "gpu1"], ["top"],
    ["monitor"], ["metrics"], ["audit"], ["catalog", "backup", "/tmp/x"], ["catalog", "check"],
)  # fmt: skip
"""What only a queen does."""


@pytest.mark.parametrize("verb", QUEENS, ids=" ".join)
def test_on_a_machine_without_a_queen_what_is_hers_is_said_to_be_elsewhere(
    bus: Bus, rbeectl: Rbeectl, verb: list[str]
) -> None:
    has_no_queen(bus, ACTIVE)

    ran = rbeectl(*verb)

    assert (ran.code, ran.out) == (3, "")
    assert ran.err.splitlines() == [
        "rbeectl: there is no queen on this machine",
        f"  try: Type it on the queen's machine; to make this one a hive of hers: {JOIN}",
        "  try: To have one here, with rbee's packages in this folder: sudo apt install ./*.deb",
    ]
    assert bus.asked == []


def test_a_hive_that_knows_its_queen_says_where_a_verb_is_typed(bus: Bus, rbeectl: Rbeectl) -> None:
    has_no_queen(bus, replace(ACTIVE, status_text="queen at queen:8500: nobody listens on queen:8500"))

    assert "try: Type it on the machine of this hive's queen, queen:8500\n" in rbeectl("list-hives").err


BEATS = "queen at queen:8500, last beat 12:00:00 UTC, the next within 15 s"


@pytest.mark.parametrize(
    ("hive", "redial", "code", "said"),
    [
        (replace(ACTIVE, status_text=BEATS), INACTIVE, 0, "is connected to its queen at queen:8500"),
        (
            replace(ACTIVE, status_text="queen at [fd00::1]:8500: nobody listens"), INACTIVE,
            3, "is not connected to its queen at [fd00::1]:8500: nobody listens",
        ),
        (
            replace(ACTIVE, status_text="queen at queen:8500, no beat yet"), INACTIVE,
            3, "is not connected to its queen at queen:8500",
        ),
        (
            replace(ACTIVE, status_text="queen at /run/rbee/queen.sock: it is not there"), INACTIVE,
            3, f"has joined no queen\n  try: {JOIN}",
        ),
        (
            replace(INACTIVE, status_text=BEATS),
            replace(ACTIVATING, status_text="waits for the queen at q:1"),
            3, "waits for its queen at q:1, who has shut it down",
        ),
        (
            replace(INACTIVE, status_text=BEATS), INACTIVE,
            3, "does not run: rbee-hive.service is inactive\n  try: sudo systemctl start rbee-hive.service",
        ),
    ],
)  # fmt: skip
def test_the_status_of_a_machine_without_a_queen_is_its_hive_s(
    bus: Bus, rbeectl: Rbeectl, hive: UnitState, redial: UnitState, code: int, said: str
) -> None:
    has_no_queen(bus, hive, redial)

    ran = rbeectl("status")

    assert (ran.code, ran.err) == (code, "")
    assert f"This hive {said}" in ran.out
    assert "queen-rbee" not in ran.out
    assert (rbeectl("status", "--json").json[0]["remote_queen"] or {}).get("connected", False) == (code == 0)


def test_a_machine_without_a_queen_knows_its_own_version_and_where_she_is(bus: Bus, rbeectl: Rbeectl) -> None:
    has_no_queen(bus, replace(ACTIVE, status_text=BEATS))

    ran = rbeectl("version")

    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[2].split(maxsplit=2) == [
        "queen",
        "-",
        "she is on another machine, queen:8500",
    ]


def test_a_shutdown_without_a_queen_is_of_this_machine_s_hive(bus: Bus, rbeectl: Rbeectl) -> None:
    has_no_queen(bus, ACTIVE)

    assert rbeectl("shutdown") == Ran(0, "This machine's hive is off\n", "")
    assert bus.asked[0] == ("stop", TARGET)


def test_for_a_program_an_asleep_queen_is_json_too(bus: Bus, rbeectl: Rbeectl) -> None:
    ran = rbeectl("list-hives", "--json")

    assert (ran.code, ran.err) == (3, "")
    assert ran.json[0]["type"] == "urn:rbee:problem:not-running"


def test_hives_are_listed(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl("list-hives"))

    header, row = ran.out.splitlines()
    assert ran.code == 0
    assert header.split()[:3] == ["HIVE", "STATE", "SINCE"]
    assert row.split()[:2] == ["localhost", "online"]


def test_an_empty_list_says_how_to_begin(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    for verb in ("list-hives", "list-devices"):
        ran = with_queen(listing(), lambda verb=verb: rbeectl(verb))
        assert (ran.code, ran.out) == (0, "No hives. Add this machine: rbeectl add-hive localhost\n")


def test_lists_are_json_for_programs(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    hives = with_queen(listing(HIVE_VIEW), lambda: rbeectl("list-hives", "--json"))
    devices = with_queen(listing(HIVE_VIEW), lambda: rbeectl("list-devices", "--json"))

    assert hives.json == [encode(Hives((HIVE_VIEW,)))]
    assert devices.json == [
        {
            "hives": [
                {"id": "localhost", "state": "online", "devices": encode(HIVE_VIEW.devices), "sample": None}
            ]
        }
    ]


def test_the_devices_of_one_hive_are_listed_and_an_unknown_one_is_told(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    other = replace(HIVE_VIEW, id="blade-7")
    one = with_queen(listing(HIVE_VIEW, other), lambda: rbeectl("list-devices", "blade-7"))
    none = with_queen(listing(HIVE_VIEW), lambda: rbeectl("list-devices", "nobody"))

    assert "blade-7" in one.out
    assert "localhost" not in one.out
    assert none.code == 4
    assert none.err.splitlines() == [
        "rbeectl: hive 'nobody' is not in the hive catalog",
        "  try: rbeectl list-hives",
    ]


def test_status_of_an_asleep_queen_exits_3_and_asks_nobody_but_systemd(bus: Bus, rbeectl: Rbeectl) -> None:
    ran = rbeectl("status")

    assert (ran.code, ran.err) == (3, "")
    assert "queen-rbee.service - the queen is asleep" in ran.out
    assert "Active: inactive (dead)" in ran.out
    assert "Hive" not in ran.out
    assert bus.asked == []


def test_status_of_an_awake_queen_shows_her_words_and_the_hives(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl("status"))

    assert ran.code == 0
    assert "● queen-rbee.service - the queen is awake" in ran.out
    assert "Status: hives: 1 online, 0 suspect, 0 offline" in ran.out
    assert "Main PID: 4711" in ran.out
    assert ran.out.splitlines()[-1].startswith("localhost  online")
    assert "\033" not in ran.out


def test_status_of_a_failed_queen_shows_her_result(bus: Bus, rbeectl: Rbeectl) -> None:
    bus.states[QUEEN_UNIT] = UnitState(
        "loaded", "failed", "failed", result="exit-code", status_text="it is damaged\x1b[2J"
    )

    ran = rbeectl("status")

    assert ran.code == 3
    assert "Result: exit-code" in ran.out
    assert "Status: it is damaged\\x1b[2J" in ran.out


def test_status_is_json_for_programs(awake: Bus, bus: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    up = with_queen(listing(HIVE_VIEW), lambda: rbeectl("status", "--json")).json[0]
    bus.states[QUEEN_UNIT] = INACTIVE
    down = rbeectl("status", "--json")

    assert (up["queen"]["state"], up["queen"]["main_pid"]) == ("awake", 4711)
    assert up["hives"] == [encode(HIVE_VIEW)]
    assert down.code == 3
    assert (down.json[0]["queen"]["state"], down.json[0]["hives"]) == ("asleep", None)


def test_a_machine_without_a_bus_says_so(bus: Bus, rbeectl: Rbeectl) -> None:
    bus.refusals["open", ""] = Unreachable("the system bus does not answer", hint="systemctl status dbus")

    ran = rbeectl("status")

    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "rbeectl: the system bus does not answer\n  try: systemctl status dbus\n"


def test_debug_shows_the_traceback_and_its_cause(bus: Bus, rbeectl: Rbeectl) -> None:
    bus.refusals["open", ""] = Unreachable("the system bus does not answer")

    plain, debug = rbeectl("status"), rbeectl("--debug", "status")

    assert "Traceback" not in plain.err
    assert "Traceback" in debug.err
    assert plain.err in debug.err


# Shutting down


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


# The terminal


class Tty:
    """Standard output, if it were a terminal."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(type(sys.stdout), "isatty", lambda self: True, raising=False)


@pytest.mark.parametrize(
    ("environ", "arguments", "has_colour"),
    [
        ({"TERM": "xterm"}, [], True),
        ({"TERM": "xterm", "NO_COLOR": "1"}, [], False),
        ({"TERM": "xterm", "NO_COLOR": ""}, [], True),
        ({"TERM": "dumb"}, [], False),
        ({}, [], False),
        ({"TERM": "xterm"}, ["--no-color"], False),
    ],
)
def test_colour_is_for_a_terminal_that_can_and_a_person_who_wants_it(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], arguments: list[str], has_colour: bool
) -> None:
    for name in ("TERM", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    Tty(monkeypatch)

    assert Session(has_colour="--no-color" not in arguments).screen.has_colour == has_colour


def test_a_table_without_legend_is_its_rows(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl("list-hives", "--no-legend"))
    assert len(ran.out.splitlines()) == 1
    assert ran.out.startswith(HIVE_VIEW.id)

    assert with_queen(listing(), lambda: rbeectl("list-hives", "--no-legend")) == Ran(0, "", "")


@pytest.mark.parametrize(("encoding", "ellipsis"), [("utf-8", "…"), ("ascii", "...")])
def test_a_line_is_cut_to_the_terminal(monkeypatch: pytest.MonkeyPatch, encoding: str, ellipsis: str) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdout", Terminal(io.BytesIO(), encoding=encoding))
    monkeypatch.setenv("COLUMNS", "40")
    rows = [("a", "b" * 100)]

    narrow = tables.table(("A", "B"), rows, Session().frame).splitlines()
    full = tables.table(("A", "B"), rows, Session(is_full=True).frame).splitlines()

    assert [len(line) for line in narrow] == [4, 40]
    assert narrow[1].endswith("b" + ellipsis)
    assert len(full[1]) == 103


def test_a_page_longer_than_the_terminal_goes_through_the_pager(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    monkeypatch.setattr("click.echo_via_pager", lambda text, color: shown.append(text))
    monkeypatch.setattr(sys, "stdin", sys.stdout)
    Tty(monkeypatch)
    for name in ("PAGER", "SYSTEMD_PAGER", "LESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LINES", "10")

    Session().show("line\n" * 8)
    assert shown == []
    Session(has_pager=False).show("line\n" * 20)
    assert shown == []
    monkeypatch.setenv("SYSTEMD_PAGER", "cat")
    Session().show("line\n" * 20)
    assert shown == []
    monkeypatch.setenv("SYSTEMD_PAGER", "more")
    Session().show("line\n" * 20)
    assert len(shown) == 1
    assert (os.environ["PAGER"], os.environ["LESS"]) == ("more", "FRSXMK")


def test_a_pipe_gets_no_colour(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    ran = with_queen({QueenRoutes.ADD_HIVE: ADDED}, lambda: rbeectl("add-hive", "localhost"))

    assert "\033" not in ran.out


def rbeectl_process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "rbee.keeper", *arguments], cwd=REPOSITORY, timeout=20, **options
    )


def test_output_that_nobody_reads_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ran = rbeectl_process("--help", stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)

    assert ran.returncode == 1
    assert ran.stderr == b""


def test_a_terminal_that_does_not_speak_utf_8_gets_escapes_and_no_traceback() -> None:
    ran = rbeectl_process(
        "add-hive", "größe", "--port", "0", capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"},
    )  # fmt: skip

    assert b"Traceback" not in ran.stderr
    assert ran.stderr


def verbs_below(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from verbs_below(command, f"{name} ")
        else:
            yield path + name, command


VERBS = dict(verbs_below(cli))


@pytest.mark.parametrize("path", VERBS)
def test_each_verb_has_help_and_takes_json(path: str) -> None:
    verb = VERBS[path]
    options = {name for option in verb.params for name in option.opts}

    assert path.endswith(verb.name or "?")
    assert verb.help
    assert {"--json", "--quiet", "--debug", "--no-color"} <= options


def test_every_error_reaches_a_person_and_a_program(capfd: pytest.CaptureFixture[str]) -> None:
    kinds = RbeeError.__subclasses__()
    assert len(kinds) > 15
    for kind in kinds:
        assert rbee.keeper.__main__.report(kind("it broke", hint="mend it"), Session()) == kind.exit_code
        assert capfd.readouterr() == ("", "rbeectl: it broke\n  try: mend it\n")
        assert rbee.keeper.__main__.report(kind("it broke"), Session(as_json=True)) == kind.exit_code
        out, err = capfd.readouterr()
        assert (json.loads(out)["detail"], err) == ("it broke", "")


def test_the_keeper_s_own_lines_have_names_that_programs_can_find() -> None:
    keeper = rbee.keeper
    modules = (keeper.hives, keeper.queen.queen, keeper.queen.shutdown, keeper.queen.sleep, keeper.queen.wake)
    told = [value for module in modules for value in vars(module).values() if isinstance(value, Event)]

    assert {event.speaker for event in told} == {"bee keeper"}


# The catalog


REPORT = CatalogReport("/var/lib/queen-rbee/catalog.db", 1, 2, 20480)


def reporting() -> dict[Route, Handler]:
    async def handler(_request: Request) -> CatalogReport:
        return REPORT

    return {QueenRoutes.CHECK_CATALOG: handler}


def test_a_check_is_said_in_a_line(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    ran = with_queen(reporting(), lambda: rbeectl("catalog", "check"))

    assert ran == Ran(0, f"{REPORT.path} is sound: 2 hives, 20.0 KiB, version 1\n", "")


def test_a_check_is_told_to_programs_in_json(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    ran = with_queen(reporting(), lambda: rbeectl("catalog", "check", "--json"))

    assert ran.json == [{"event": "done", **encode(REPORT)}]


def test_a_backup_of_a_sleeping_queen_exits_3_and_wakes_nobody(bus: Bus, rbeectl: Rbeectl) -> None:
    ran = rbeectl("catalog", "backup", "copy.db")

    assert (ran.code, ran.out) == (3, "")
    assert ran.err.splitlines() == [
        "rbeectl: the queen is asleep, and a copy of her catalog is made by her alone",
        "  try: systemctl start queen-rbee.service",
        "  try: rbeectl catalog backup copy.db",
    ]
    assert bus.asked == []


def test_a_check_of_a_file_needs_neither_systemd_nor_a_queen(
    bus: Bus, rbeectl: Rbeectl, tmp_path: Path
) -> None:
    (tmp_path / "x.db").write_bytes(b"garbage" * 1000)

    ran = rbeectl("catalog", "check", str(tmp_path / "x.db"))

    assert ran.code == 78
    assert ran.err.startswith(f"rbeectl: {tmp_path / 'x.db'} is damaged or no hive catalog: ")
    assert bus.opened == 0


@pytest.mark.parametrize(
    "arguments",
    [["restore"], ["restore", "x.db", "--empty"], ["backup"], ["mend"]],
    ids=" ".join,
)
def test_a_usage_error_of_a_catalog_verb_exits_2(bus: Bus, rbeectl: Rbeectl, arguments: list[str]) -> None:
    ran = rbeectl("catalog", *arguments)

    assert (ran.code, ran.out) == (2, "")
    assert bus.opened == 0
