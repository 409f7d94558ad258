"""rbeectl as a person or a program meets it: words, streams and exit codes, with a queen that is served."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from starlette.requests import Request

from rbee.errors import RbeeError, TcpClosed, UnknownToken
from rbee.scope import QUEEN_UNIT
from rbee.server.app import Handler
from rbee.wire.catalog import Audit
from rbee.wire.codec import encode
from rbee.wire.fleet import CreatedToken, Tokens
from rbee.wire.routes import QueenRoutes, Route
from tests.unit.keeper.doubles import Ran, Rbeectl, WithQueen
from tests.unit.keeper.fleet.remote_machine import ENTRY, GPU1, OPEN, TEXT, TOKEN, Queen
from tests.unit.played_systemd import PlayedBus


def answering(route: Route, answer: Any) -> dict[Route, Handler]:
    async def handler(_request: Request) -> Any:
        if isinstance(answer, RbeeError):
            raise answer
        return answer

    return {route: handler}


@pytest.mark.parametrize(
    ("arguments", "route", "answer", "told"),
    [
        (("label", "gpu1", "rack=3"), QueenRoutes.SET_LABELS, GPU1, {"event": "done", "hive": encode(GPU1)}),
        (("cordon", "gpu1", "why"), QueenRoutes.SET_CORDON, GPU1, {"event": "done", "hive": encode(GPU1)}),
        (("uncordon", "gpu1"), QueenRoutes.SET_CORDON, GPU1, {"event": "done", "hive": encode(GPU1)}),
        (("token", "revoke", TEXT), QueenRoutes.REVOKE_TOKEN, TOKEN, {"event": "done", **encode(TOKEN)}),
        (("token", "list"), QueenRoutes.TOKENS, Tokens((TOKEN,)), encode(Tokens((TOKEN,)))),
        (("audit",), QueenRoutes.AUDIT, Audit((ENTRY,)), encode(Audit((ENTRY,)))),
        (("tcp", "status"), QueenRoutes.TCP, OPEN, encode(OPEN)),
    ],
    ids=lambda value: " ".join(value) if type(value) is tuple else "",
)
def test_a_program_reads_the_answer_as_one_object(
    awake: PlayedBus,
    rbeectl: Rbeectl,
    with_queen: WithQueen,
    arguments: tuple[str, ...],
    route: Route,
    answer: Any,
    told: Any,
) -> None:
    ran = with_queen(answering(route, answer), lambda: rbeectl(*arguments, "--json"))

    assert (ran.code, ran.json, ran.err) == (0, [told], "")


def test_a_program_reads_the_token_with_what_is_known_of_it(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen(Queen().handlers, lambda: rbeectl("token", "create", "--json"))

    assert ran.json == [encode(CreatedToken(TEXT, TOKEN))]


@pytest.mark.parametrize(
    ("arguments", "route", "answer"),
    [
        (("label", "gpu1", "rack=3"), QueenRoutes.SET_LABELS, GPU1),
        (("cordon", "gpu1", "why"), QueenRoutes.SET_CORDON, GPU1),
        (("uncordon", "gpu1"), QueenRoutes.SET_CORDON, GPU1),
        (("token", "revoke", "0123abcd"), QueenRoutes.REVOKE_TOKEN, TOKEN),
    ],
    ids=lambda value: " ".join(value) if type(value) is tuple else "",
)
def test_changing_wakes_her_and_quietly_says_nothing(
    bus: PlayedBus,
    rbeectl: Rbeectl,
    with_queen: WithQueen,
    arguments: tuple[str, ...],
    route: Route,
    answer: Any,
) -> None:
    ran = with_queen(answering(route, answer), lambda: rbeectl(*arguments, "--quiet"))

    assert ran == Ran(0, "", "")
    assert bus.asked == [("start", QUEEN_UNIT)]


def test_an_empty_list_is_a_sentence_that_no_legend_omits(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    handlers = {**answering(QueenRoutes.TOKENS, Tokens(())), **answering(QueenRoutes.AUDIT, Audit(()))}

    assert with_queen(handlers, lambda: rbeectl("token", "list")).out == (
        "No tokens. Make one: rbeectl token create\n"
    )
    assert with_queen(handlers, lambda: rbeectl("audit")).out == "No changes yet\n"
    assert with_queen(handlers, lambda: rbeectl("audit", "-n", "0")).out == ""
    for arguments in (("token", "list"), ("audit",)):
        ran = with_queen(handlers, lambda arguments=arguments: rbeectl(*arguments, "--no-legend"))
        assert ran == Ran(0, "", "")


@pytest.mark.parametrize(
    ("arguments", "route", "refusal"),
    [
        (
            ("token", "create"),
            QueenRoutes.CREATE_TOKEN,
            TcpClosed("the queen is not open", hint="rbeectl tcp enable"),
        ),
        (
            ("token", "revoke", "0123abcd"),
            QueenRoutes.REVOKE_TOKEN,
            UnknownToken("there is no token 0123abcd", hint="rbeectl token list"),
        ),
    ],
    ids=["create", "revoke"],
)
def test_what_she_refuses_is_told_with_its_cure_and_its_exit_code(
    awake: PlayedBus,
    rbeectl: Rbeectl,
    with_queen: WithQueen,
    arguments: tuple[str, ...],
    route: Route,
    refusal: RbeeError,
) -> None:
    ran = with_queen(answering(route, refusal), lambda: rbeectl(*arguments))

    assert (ran.code, ran.out) == (refusal.exit_code, "")
    assert ran.err == f"rbeectl: {refusal.message}\n  try: {refusal.hint}\n"


def test_other_verbs_do_not_pay_for_the_doctor() -> None:
    code = "import sys, rbee.keeper.cli; print(*(n for n in sys.modules if n.startswith('rbee.keeper')))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "rbee.keeper.doctor" not in run.stdout.split()
