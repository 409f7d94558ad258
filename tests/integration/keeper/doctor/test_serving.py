"""Models, workers and engines, as the doctor sees them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from rbee.errors import HiveFailed, NotPermitted
from rbee.keeper.doctor.check import Complaint
from rbee.keeper.doctor.serving import check_serving
from rbee.scope import QUEEN_UNIT
from rbee.wire.engines import FleetEngines, HiveEngines
from rbee.wire.models import Models
from rbee.wire.routes import QueenRoutes
from rbee.wire.workers import Workers
from tests.integration.keeper.played_models import PlayedModels
from tests.unit.keeper.doctor.doubles import asked
from tests.unit.keeper.model_values import ASLEEP, MODEL, WORKER
from tests.unit.played_systemd import INACTIVE, PlayedBus

Look = Callable[..., list[Complaint]]


@pytest.fixture
def look(awake: PlayedBus, with_queen: Callable[..., Any], tmp_path: Path) -> Look:
    """What the doctor complains of beside a queen with these models."""
    (tmp_path / "run").mkdir()
    (tmp_path / "srv").mkdir()
    (tmp_path / "srv/bee.gguf").touch()
    (tmp_path / "run/rbee").symlink_to(tmp_path)
    units = tmp_path / "run/systemd/units"
    units.mkdir(parents=True)

    def run(queen: PlayedModels, *running: str, handlers: Any = None) -> list[Complaint]:
        for unit in running:
            (units / f"invocation:{unit}").symlink_to("a" * 32)
        return with_queen(queen.handlers | (handlers or {}), lambda: asked(check_serving, awake, tmp_path))

    return run


def texts(complaints: list[Complaint]) -> list[str]:
    return [complaint.text for complaint in complaints if complaint.is_fault]


REFUSED = "an engine's drop-in on localhost is refused: /etc/rbee/engines.d/a.conf:3: unknown"


def test_a_worker_that_its_hive_has_is_well(look: Look) -> None:
    assert texts(look(PlayedModels(), "rbee-worker@bee-1.service", "rbee-hive.service")) == [REFUSED]


def test_an_orphan_is_stopped(look: Look, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbee.keeper.doctor.serving.CLAIM_TIMEOUT", 0.1)
    *_, orphan = look(PlayedModels(workers=(ASLEEP,)), "rbee-worker@bee-1.service")

    assert orphan.text.startswith("rbee-worker@bee-1.service runs, and no hive claims it")
    assert orphan.cures == (("systemctl", "stop", "rbee-worker@bee-1.service"),)


def test_a_hive_that_has_just_started_has_a_moment_to_claim_its_workers(look: Look) -> None:
    answers = [(ASLEEP,), (ASLEEP,), (WORKER,)]

    async def workers(_request: Request) -> Workers:
        return Workers(answers.pop(0))

    found = look(PlayedModels(), "rbee-worker@bee-1.service", handlers={QueenRoutes.WORKERS: workers})
    assert (texts(found), answers) == ([REFUSED], [])


def test_models_and_workers_that_are_not_well_are_named(look: Look, tmp_path: Path) -> None:
    (tmp_path / "srv/bee.gguf").unlink()
    queen = PlayedModels(
        MODEL._replace(state="missing", reason="it was deleted"),
        MODEL._replace(name="wasp", state="failed", reason="404 Not Found"),
        workers=(WORKER._replace(state="failed", reason="signal 9"),),
    )
    assert texts(look(queen)) == [
        "the file of model bee is gone: /srv/bee.gguf on localhost (it was deleted)",
        "model wasp could not be added: 404 Not Found",
        REFUSED,
        "worker bee-1 of model bee has failed: signal 9",
    ]


def test_a_file_that_is_gone_is_named_before_a_start_finds_out(look: Look, tmp_path: Path) -> None:
    (tmp_path / "srv/bee.gguf").unlink()
    gone = "the file of model bee is gone: /srv/bee.gguf on localhost"
    assert texts(look(PlayedModels())) == [gone, REFUSED]

    # What is on another machine, or cannot be looked at, is not judged.
    assert gone not in texts(look(PlayedModels(MODEL._replace(hive_id="gpu1"))))
    (tmp_path / "srv").rmdir()
    (tmp_path / "srv").symlink_to("srv")
    assert texts(look(PlayedModels())) == [REFUSED]


def test_a_file_that_is_back_is_no_fault(look: Look) -> None:
    complaints = look(PlayedModels(MODEL._replace(state="missing", reason="it was deleted")))
    assert texts(complaints) == [REFUSED]
    assert "which is there now: /srv/bee.gguf; the next start looks again" in complaints[0].text


def test_engines_are_told_with_what_they_lack_and_a_drop_in_is_refused_without_models_too(look: Look) -> None:
    notes = [one.text for one in look(PlayedModels()) if not one.is_fault]
    assert "engines of localhost: llama-server: can be used; vllm: vllm was not found" in notes

    async def no_models(_request: Request) -> Models:
        return Models(())

    handlers = {QueenRoutes.MODELS: no_models}
    assert [one.text for one in look(PlayedModels(workers=()), handlers=handlers)] == [REFUSED]


def test_a_hive_that_was_stopped_is_named_for_the_sake_of_its_models(look: Look) -> None:
    stopped = HiveEngines("localhost", (), reason="the beehive is offline: stopped by an administrator")

    async def engines(_request: Request) -> FleetEngines:
        return FleetEngines((stopped,))

    (note,) = look(PlayedModels(), handlers={QueenRoutes.ENGINES: engines})
    assert note.text == (
        "no model can be started on localhost: the beehive is offline: stopped by an administrator"
    )
    assert (note.is_fault, note.hint) == (False, "rbeectl add-hive localhost")


def test_a_model_without_an_engine_is_named(look: Look) -> None:
    assert MODEL.head is not None
    folder = MODEL._replace(head=MODEL.head._replace(format="safetensors"))

    assert texts(look(PlayedModels(folder))) == [
        REFUSED,
        "localhost has no engine for model bee (safetensors): vllm: vllm was not found",
    ]
    assert texts(look(PlayedModels(folder._replace(is_served=False)))) == [REFUSED]
    other = look(PlayedModels(MODEL._replace(engine="ollama")))
    assert texts(other)[1] == "localhost has no engine for model bee (ollama): no drop-in is for it"


def test_what_cannot_be_asked_is_a_note_or_a_fault(look: Look, awake: PlayedBus, tmp_path: Path) -> None:
    def failing(error: Exception) -> Any:
        async def handler(_request: Request) -> Any:
            raise error

        return {QueenRoutes.WORKERS: handler}

    (note,) = look(PlayedModels(), handlers=failing(NotPermitted("no")))
    assert not note.is_fault
    (fault,) = look(PlayedModels(), handlers=failing(HiveFailed("it hangs")))
    assert fault.text == "the queen does not report its models: it hangs"
    awake.states[QUEEN_UNIT] = INACTIVE
    assert asked(check_serving, awake, tmp_path) == []
    (note,) = asked(check_serving, None, tmp_path)
    assert not note.is_fault


def test_a_file_system_that_does_not_answer_is_said_to(
    look: Look, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, stat = threading.Event(), Path.stat

    def hang(path: Path, **options: Any) -> Any:
        if path == tmp_path / "srv/bee.gguf":
            asked.wait()
        return stat(path, **options)

    monkeypatch.setattr("rbee.keeper.doctor.serving.LOOK_TIMEOUT", 0.1)
    monkeypatch.setattr(Path, "stat", hang)
    try:
        complaints = look(PlayedModels(), "rbee-worker@bee-1.service", "rbee-hive.service")
    finally:
        asked.set()

    assert "the file system of model bee does not answer: /srv/bee.gguf" in texts(complaints)
