"""The verbs of model."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from starlette.requests import Request

import rbee.keeper.models.file
from rbee.keeper.models.file import ModelFile
from rbee.scope import QUEEN_UNIT
from rbee.wire.codec import decode
from rbee.wire.jobs import Done, JobStarted
from rbee.wire.models import AddModel
from rbee.wire.routes import QueenRoutes
from tests.integration.keeper.played_models import PlayedModels
from tests.unit.keeper.doubles import JOB, Rbeectl, WithQueen
from tests.unit.keeper.model_values import GIB, HEAD, MODEL
from tests.unit.played_systemd import INACTIVE, PlayedBus


@pytest.fixture
def bee(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file, and a header that is read from it."""
    path = tmp_path / "bee.gguf"
    path.write_bytes(b"bee")
    monkeypatch.setattr(
        rbee.keeper.models.file, "read_model", lambda typed, scope: ModelFile(Path(typed), HEAD, 3)
    )
    return path


def test_a_file_is_added_with_its_header(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, bee: Path
) -> None:
    queen = PlayedModels()
    ran = with_queen(queen.handlers, lambda: rbeectl("model", "add", "bee", str(bee), "--memory", "1.5G"))

    assert ran.out.splitlines() == [
        "(bee keeper) queen is awake and healthy.",
        "(bee keeper) Requesting queen to add bee to model catalog",
        "(queen bee)  It is done.",
        "Model bee is in the model catalog (gguf llama 7.62B Q4_K, 4.0 GiB)",
    ]
    assert queen.asked == [
        AddModel("bee", path=str(bee), memory_bytes=GIB * 3 // 2, head=HEAD, bytes=3, hive="localhost")
    ]
    right = hashlib.sha256(b"bee").hexdigest()
    for sum_, code in ((right.upper(), 0), ("0" * 64, 2), ("bee", 2)):
        work = ("model", "add", "bee", str(bee), "--sha256", sum_)
        assert with_queen(queen.handlers, lambda work=work: rbeectl(*work)).code == code
    assert [one.sha256 for one in queen.asked] == [None, right]


def test_a_url_is_left_to_the_hive_and_need_not_be_waited_for(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    asked: list[AddModel] = []

    async def begin(request: Request) -> JobStarted:
        asked.append(decode(AddModel, json.loads(await request.body())))
        return JobStarted("localhost", JOB, f"/v1/jobs/{JOB}/events")

    work = ("model", "add", "bee", "https://example.org/bee", "--context", "8192", "--no-wait")
    ran = with_queen({QueenRoutes.ADD_MODEL: begin}, lambda: rbeectl(*work))

    assert asked == [AddModel("bee", url="https://example.org/bee", context=8192, hive="localhost")]
    assert ran.out.splitlines()[-1].startswith(f"Job {JOB} continues; follow it: ")


@pytest.mark.parametrize(
    "arguments",
    [
        ("a b", "https://example.org/bee"),
        ("bee", "ftp://example.org/bee"),
        ("bee", "/nowhere/bee.gguf"),
        ("bee", "https://example.org/bee", "--memory", "much"),
        ("bee", "https://example.org/bee", "--memory", "0"),
        ("bee", "https://example.org/bee", "--context", "0"),
        ("bee", "https://example.org/bee", "--sha256", "abc"),
    ],
)
def test_what_cannot_be_added_is_refused_before_the_queen_is_woken(
    bus: PlayedBus, rbeectl: Rbeectl, arguments: tuple[str, ...]
) -> None:
    ran = rbeectl("model", "add", *arguments)

    assert (ran.code in (1, 2), ran.out) == (True, "")
    assert bus.asked == []


def test_models_are_listed_and_shown_and_wake_nobody(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    queen = PlayedModels()
    listed = with_queen(queen.handlers, lambda: rbeectl("model", "list", "--no-legend"))
    assert listed.out.split()[:3] == ["bee", "ready", "yes"]
    assert (
        with_queen(queen.handlers, lambda: rbeectl("model", "list", "--json")).json[0]["models"][0]["name"]
        == "bee"
    )
    shown = with_queen(queen.handlers, lambda: rbeectl("model", "show", "bee")).out
    assert "Context: 4096 tokens, of at most 32768\n" in shown
    assert "Served: yes; an idle worker is stopped after 5min\n" in shown
    unknown = with_queen(queen.handlers, lambda: rbeectl("model", "show", "bea"))
    assert unknown.code == 4
    assert "did you mean bee?" in unknown.err
    awake.states[QUEEN_UNIT] = INACTIVE
    assert rbeectl("model", "list").code == 3
    assert awake.asked == []


def test_a_removal_that_finds_nothing_is_no_error_and_suggests(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    there, away = PlayedModels(), PlayedModels(done=Done(None, was_there=False))

    ran = with_queen(there.handlers, lambda: rbeectl("model", "remove", "bee"))
    assert (ran.out.splitlines()[-1], there.asked) == ("Model bee is removed", ["bee"])
    ran = with_queen(away.handlers, lambda: rbeectl("model", "remove", "bea"))
    assert ran.code == 0
    assert ran.out.splitlines()[-1] == "Model bea was not in the model catalog; did you mean bee?"
    ran = with_queen(away.handlers, lambda: rbeectl("model", "remove", "bea", "--json"))
    assert ran.json[-1] == {"event": "done", "model": None, "was_there": False}


def test_a_model_that_is_not_served_yet_gets_the_next_step(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, bee: Path
) -> None:
    queen = PlayedModels(done=Done(None, model=MODEL._replace(is_served=False)))
    ran = with_queen(queen.handlers, lambda: rbeectl("model", "add", "bee", str(bee)))
    assert ran.out.splitlines()[-1] == "To have it answer: rbeectl serve bee"
