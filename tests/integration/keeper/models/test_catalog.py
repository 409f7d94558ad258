"""The models of the queen's catalog, and their workers."""

from __future__ import annotations

from rbee.wire.routes import QueenRoutes
from tests.integration.keeper.played_models import PlayedModels
from tests.unit.keeper.doubles import ADDED, Rbeectl, WithQueen
from tests.unit.played_systemd import PlayedBus
from tests.unit.wire_values import HIVE_VIEW

GPU1 = HIVE_VIEW._replace(id="gpu1")


def test_adding_a_hive_says_which_engines_it_has(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    queen = PlayedModels().handlers | {QueenRoutes.ADD_HIVE: ADDED}
    ran = with_queen(queen, lambda: rbeectl("add-hive", "localhost"))

    assert ran.out.splitlines()[-3:] == [
        "Engine llama-server: can be used",
        "Engine vllm: vllm was not found",
        "An engine is refused: /etc/rbee/engines.d/a.conf:3: unknown",
    ]
