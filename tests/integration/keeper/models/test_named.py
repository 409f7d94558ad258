"""A name of a hive, or of a model."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import rbee.keeper.verbs.logs
from tests.integration.keeper.played_models import PlayedModels
from tests.unit.keeper.doubles import Rbeectl, WithQueen, listing
from tests.unit.keeper.model_values import WORKER
from tests.unit.played_systemd import PlayedBus
from tests.unit.wire_values import HIVE_VIEW


def test_show_has_the_properties_of_either(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    queen = PlayedModels().handlers

    ran = with_queen(queen, lambda: rbeectl("show", "BEE", "-p", "Id,Served,IdleSec,Layers,MemoryLearned"))
    assert ran.out.splitlines() == [
        "Id=bee",
        "Served=yes",
        "IdleSec=300",
        "Layers=28",
        "MemoryLearned=5368709120",
    ]
    assert with_queen(queen, lambda: rbeectl("show", "localhost", "-p", "Id")).out == "Id=localhost\n"
    assert with_queen(queen, lambda: rbeectl("show", "bee", "--json")).json[0]["name"] == "bee"
    wrong = with_queen(queen, lambda: rbeectl("show", "bee", "-p", "Layer"))
    assert "a model has no property 'Layer'; did you mean Layers?" in wrong.err


def test_a_name_of_neither_suggests_both(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    for typed, near in (("localhos", "localhost"), ("bea", "bee")):
        ran = with_queen(PlayedModels().handlers, lambda typed=typed: rbeectl("status", typed))
        assert ran.code == 4
        assert f"no hive, model or worker has the name '{typed}'; did you mean {near}?" in ran.err


def test_a_queen_without_models_has_hives_only(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl("show", "localhos"))
    assert (ran.code, "hive 'localhos' is not in the hive catalog" in ran.err) == (4, True)


def test_the_name_of_a_worker_shows_its_model_and_its_own_log(
    awake: PlayedBus,
    rbeectl: Rbeectl,
    with_queen: WithQueen,
    executed: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rbee.keeper.verbs.logs, "is_readable", lambda: True)
    queen = PlayedModels(workers=(WORKER,)).handlers

    assert with_queen(queen, lambda: rbeectl("show", "bee-1", "-p", "Id")).out == "Id=bee\n"
    assert "Worker: bee-1" in with_queen(queen, lambda: rbeectl("status", "bee-1", "-n", "0")).out
    assert "did you mean bee-1 or bee?" in with_queen(queen, lambda: rbeectl("logs", "bee-7")).err
    with_queen(queen, lambda: rbeectl("logs", "bee-1", "-n", "3"))
    assert executed() == ["journalctl", "--lines=3", "--unit", "rbee-worker@bee-1.service"]


def test_the_log_of_a_model_is_that_of_its_workers(
    awake: PlayedBus,
    rbeectl: Rbeectl,
    with_queen: WithQueen,
    executed: Callable[[], list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rbee.keeper.verbs.logs, "is_readable", lambda: True)
    with_queen(PlayedModels().handlers, lambda: rbeectl("logs", "bee", "-f"))

    assert executed() == ["journalctl", "--follow", "--unit", "rbee-worker@bee-[0-9]*.service"]
