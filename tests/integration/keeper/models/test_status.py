"""A model and its workers, as status shows them."""

from __future__ import annotations

import pytest

import rbee.keeper.models.status
from rbee.wire.logs import LogQuery
from rbee.wire.workers import WorkerView
from tests.integration.keeper.played_models import PlayedModels
from tests.unit.keeper.doubles import Rbeectl, WithQueen
from tests.unit.keeper.model_values import ASLEEP, MODEL, WORKER
from tests.unit.played_systemd import PlayedBus

FAILED = WORKER._replace(state="failed", reason="signal 9", log=("a", "out of memory\x1b[2J"))


@pytest.fixture(autouse=True)
def journal(monkeypatch: pytest.MonkeyPatch) -> list[tuple[LogQuery, int]]:
    """A journal that has nothing."""
    asked: list[tuple[LogQuery, int]] = []

    def tail(query: LogQuery, lines: int, scope: object) -> list[str]:
        asked.append((query, lines))
        return []

    monkeypatch.setattr(rbee.keeper.models.status, "tail", tail)
    return asked


def test_a_model_is_shown_as_systemctl_shows_a_unit(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, journal: list[tuple[LogQuery, int]]
) -> None:
    ran = with_queen(PlayedModels(workers=(WORKER,)).handlers, lambda: rbeectl("status", "bee", "-n", "3"))

    assert (ran.code, ran.err) == (0, "")
    lines = [line.strip() for line in ran.out.splitlines()]
    assert lines[0].endswith("bee - model")
    for line in (
        "File: /srv/bee.gguf on localhost, 4.0 GiB",
        "Worker: bee-1",
        "Device: localhost gpu0",
        "Memory: 4.0 GiB of 5.0 GiB",
        "Requests: 2 in flight",
        "Main PID: 4711",
    ):
        assert line in lines
    assert journal == [(LogQuery(model="bee"), 3)]


def test_a_failed_engine_s_last_lines_are_shown_to_who_may_not_read_the_journal(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    queen = PlayedModels(workers=(FAILED,))
    ran = with_queen(queen.handlers, lambda: rbeectl("status", "bee"))

    assert ran.code == 3
    assert ran.out.splitlines()[-2:] == ["a", "out of memory\\x1b[2J"]
    assert with_queen(queen.handlers, lambda: rbeectl("status", "bee", "-n", "1")).out.splitlines()[-2] == ""
    told = with_queen(queen.handlers, lambda: rbeectl("status", "bee", "--json")).json[0]
    assert (told["model"]["name"], told["workers"][0]["id"]) == ("bee", "bee-1")
    assert told["log"] == list(FAILED.log)


@pytest.mark.parametrize(
    ("worker", "code"), [(ASLEEP, 0), (WORKER, 0), (WORKER._replace(state="loading"), 0), (FAILED, 3)]
)
def test_the_exit_status_is_whether_it_answers(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, worker: WorkerView, code: int
) -> None:
    queen = PlayedModels(workers=(worker,))
    assert with_queen(queen.handlers, lambda: rbeectl("status", "bee")).code == code
    for model in (MODEL._replace(is_served=False), MODEL._replace(state="missing")):
        queen = PlayedModels(model, workers=(worker,))
        assert with_queen(queen.handlers, lambda: rbeectl("status", "bee")).code == 3
