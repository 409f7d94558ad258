"""The models of the queen's catalog, and their workers."""

from __future__ import annotations

from rbee.wire.routes import QueenRoutes
from tests.integration.keeper.played_models import PlayedModels
from tests.unit.keeper.doubles import ADDED, Rbeectl, WithQueen, listing
from tests.unit.keeper.model_values import ASLEEP, WORKER
from tests.unit.played_systemd import PlayedBus
from tests.unit.wire_values import HIVE_VIEW

GPU1 = HIVE_VIEW._replace(id="gpu1")


def test_workers_are_counted_by_hive(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    stopped = WORKER._replace(id="bee-0", state="stopped")
    workers = (WORKER, WORKER._replace(id="bee-2"), stopped, ASLEEP)
    queen = PlayedModels(workers=workers).handlers | listing(HIVE_VIEW, GPU1)
    ran = with_queen(queen, lambda: rbeectl("list-hives"))

    header, *rows = ran.out.splitlines()
    at = header.index("WORKERS")
    assert [row[at : at + 2].strip() for row in rows] == ["2", "0"]


def test_a_queen_that_does_not_count_workers_has_hives_all_the_same(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    header, row = with_queen(listing(HIVE_VIEW), lambda: rbeectl("list-hives")).out.splitlines()
    assert row[header.index("WORKERS")] == "-"


def test_adding_a_hive_says_which_engines_it_has(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    queen = PlayedModels().handlers | {QueenRoutes.ADD_HIVE: ADDED}
    ran = with_queen(queen, lambda: rbeectl("add-hive", "localhost"))

    assert ran.out.splitlines()[-2:] == [
        "Engine llama-server: can be used",
        "Engine vllm: vllm was not found",
    ]
