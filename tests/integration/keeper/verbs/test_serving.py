"""The verbs serve, unserve, list-workers, place and list-engines."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request

from rbee.errors import UnknownHive
from rbee.scope import GATEWAY_SOCKET_UNIT, SYSTEM
from rbee.wire.engines import FleetEngines
from rbee.wire.jobs import Done
from rbee.wire.models import Serve
from rbee.wire.routes import QueenRoutes
from tests.integration.keeper.played_models import PlayedModels
from tests.unit.keeper.doubles import Ran, Rbeectl, WithQueen
from tests.unit.keeper.model_values import ENGINES, MODEL, PLACEMENT
from tests.unit.played_systemd import INACTIVE, PlayedBus


def test_serving_keeps_what_is_not_given(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    queen = PlayedModels()
    ran = with_queen(queen.handlers, lambda: rbeectl("serve", "bee"))

    assert ran.out.splitlines()[1:3] == [
        "Model bee is served: asleep until it is asked; an idle worker is stopped after 5min",
        "To ask it: rbeectl ask bee PROMPT",
    ]
    work = (
        "serve",
        "bee",
        "--context",
        "512",
        "--idle",
        "2min",
        "--pin",
        "--engine",
        "llama-server",
        "--json",
    )
    ran = with_queen(queen.handlers, lambda: rbeectl(*work))
    assert ran.json[-1]["model"]["name"] == "bee"
    with_queen(queen.handlers, lambda: rbeectl("serve", "bee", "--no-pin"))
    assert queen.asked == [Serve(), Serve(512, 120, True, "llama-server"), Serve(is_pinned=False)]


def test_serving_has_the_gateway_listen_and_says_what_is_missing_yet(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    awake.states[GATEWAY_SOCKET_UNIT] = INACTIVE
    queen = PlayedModels(MODEL._replace(state="fetching", reason="62 %"))
    ran = with_queen(queen.handlers, lambda: rbeectl("serve", "bee"))

    assert awake.asked == [("start", GATEWAY_SOCKET_UNIT)]
    assert "Model bee is served: once its file is ready; now it is fetching (62 %)" in ran.out
    assert ran.out.splitlines()[-1].endswith("/openai.sock")
    unknown = with_queen(queen.handlers, lambda: rbeectl("serve", "bea"))
    assert (unknown.code, "did you mean bee?" in unknown.err) == (4, True)


def test_serving_by_an_engine_that_is_not_there_is_refused_and_by_a_broken_one_warned_of(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    queen = PlayedModels()
    missing = with_queen(queen.handlers, lambda: rbeectl("serve", "bee", "--engine", "lama-server"))
    assert (missing.code, queen.asked) == (4, [])
    assert "has no engine lama-server; did you mean llama-server?\n" in missing.err
    other = with_queen(queen.handlers, lambda: rbeectl("serve", "bee", "--engine", "vllm"))
    assert (other.code, queen.asked) == (4, [])
    assert "the engine vllm serves safetensors, and bee is gguf\n" in other.err

    async def engines(_request: Request) -> FleetEngines:
        local = ENGINES.hives[0]
        gone = local.engines[0]._replace(problem="llama-server was not found")
        return FleetEngines((local._replace(engines=(gone,)),))

    def serve(handlers: Any) -> Ran:
        return with_queen(handlers, lambda: rbeectl("serve", "bee", "--engine", "llama-server"))

    broken = serve(queen.handlers | {QueenRoutes.ENGINES: engines})
    good = serve(queen.handlers)
    assert (broken.code, good.code) == (0, 0)
    assert "the engine llama-server cannot be used now: llama-server was not found" in broken.err
    assert "list-engines" not in good.out + good.err


def test_an_engine_of_a_hive_that_is_not_in_the_catalog_yet_is_not_checked(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    async def engines(_request: Request) -> FleetEngines:
        raise UnknownHive("the hive catalog has no localhost")

    queen = PlayedModels()
    handlers = queen.handlers | {QueenRoutes.ENGINES: engines}
    ran = with_queen(handlers, lambda: rbeectl("serve", "bee", "--engine", "vllm"))
    assert (ran.code, queen.asked) == (0, [Serve(engine="vllm")])
    assert "whether localhost has the engine vllm is not known: " in ran.err


def test_a_choice_is_taken_back(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    queen = PlayedModels()
    with_queen(queen.handlers, lambda: rbeectl("serve", "bee", "--engine", "", "--context", "0"))
    assert queen.asked == [Serve(context=0, engine="")]


@pytest.mark.parametrize(
    "arguments", [("a b",), ("bee", "--idle", "0"), ("bee", "--idle", "2000d"), ("bee", "--engine", "A B")]
)
def test_what_cannot_be_served_so_is_refused_first(
    bus: PlayedBus, rbeectl: Rbeectl, arguments: tuple[str, ...]
) -> None:
    assert rbeectl("serve", *arguments).code == 2
    assert bus.asked == []


def test_unserving_is_a_job(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    queen = PlayedModels()
    ran = with_queen(queen.handlers, lambda: rbeectl("unserve", "bee"))
    assert ran.out.splitlines()[-1] == "Model bee is not served any more"
    away = PlayedModels(done=Done(None, was_there=False))
    ran = with_queen(away.handlers, lambda: rbeectl("unserve", "bea"))
    assert ran.out.splitlines()[-1] == "Model bea was not served; did you mean bee?"


def test_workers_are_listed_of_one_model_or_of_all(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    queen = PlayedModels()
    ran = with_queen(queen.handlers, lambda: rbeectl("list-workers", "--no-legend"))
    assert [line.split()[0] for line in ran.out.splitlines()] == ["bee-1", "-"]
    ran = with_queen(queen.handlers, lambda: rbeectl("list-workers", "bee", "--json"))
    assert [worker["id"] for worker in ran.json[0]["workers"]] == ["bee-1", None]
    assert with_queen(queen.handlers, lambda: rbeectl("list-workers", "bea")).code == 4
    none = PlayedModels(workers=())
    ran = with_queen(none.handlers, lambda: rbeectl("list-workers", "bee"))
    assert ran.out == f"No workers, and bee is not served: {SYSTEM.rbeectl('serve bee')}\n"


@pytest.mark.parametrize(
    ("decision", "code"), [("ready", 0), ("start", 0), ("evict", 0), ("wait", 3), ("refuse", 1)]
)
def test_a_placement_s_exit_status_is_its_decision(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, decision: str, code: int
) -> None:
    queen = PlayedModels(placement=PLACEMENT._replace(decision=decision))  # type: ignore[arg-type]
    ran = with_queen(queen.handlers, lambda: rbeectl("place", "bee", "--dry-run"))

    assert (ran.code, ran.err) == (code, "")
    assert "3 GiB short" in ran.out
    told = with_queen(queen.handlers, lambda: rbeectl("place", "bee", "--json"))
    assert (told.code, told.json[0]["decision"]) == (code, decision)
    assert with_queen(queen.handlers, lambda: rbeectl("place", "bea")).code == 4


def test_engines_are_listed(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    ran = with_queen(PlayedModels().handlers, lambda: rbeectl("list-engines"))
    assert ran.out.splitlines()[0].split() == [
        "HIVE", "ENGINE", "FORMATS", "EXECUTABLE", "FILE", "PROBLEM",
    ]  # fmt: skip
    told = with_queen(PlayedModels().handlers, lambda: rbeectl("list-engines", "--json"))
    assert [hive["hive_id"] for hive in told.json[0]["hives"]] == ["localhost", "gpu1"]
