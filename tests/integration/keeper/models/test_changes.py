"""Adding, serving and removing models."""

from __future__ import annotations

import pytest

from rbee.scope import QUEEN_UNIT
from tests.integration.keeper.played_models import PlayedModels
from tests.unit.keeper.doubles import FAILURE, Rbeectl, WithQueen
from tests.unit.played_systemd import PlayedBus


@pytest.mark.parametrize("verb", [("serve",), ("unserve",), ("model", "remove")], ids=" ".join)
def test_what_changes_a_model_wakes_the_queen(
    bus: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, verb: tuple[str, ...]
) -> None:
    ran = with_queen(PlayedModels().handlers, lambda: rbeectl(*verb, "bee"))

    assert (ran.code, ran.err) == (0, "")
    assert bus.asked == [("start", QUEEN_UNIT)]
    assert ran.out.startswith("(bee keeper) queen is asleep, waking queen.\n")


@pytest.mark.parametrize("verb", [("serve",), ("unserve",), ("model", "remove")], ids=" ".join)
def test_a_name_that_cannot_be_wakes_nobody(bus: PlayedBus, rbeectl: Rbeectl, verb: tuple[str, ...]) -> None:
    assert rbeectl(*verb, "a b").code == 2
    assert bus.asked == []


def test_the_error_of_a_job_is_the_verb_s(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    from rbee.wire.routes import QueenRoutes

    ran = with_queen(
        PlayedModels().handlers | {QueenRoutes.UNSERVE: FAILURE}, lambda: rbeectl("unserve", "bee")
    )
    assert ran.code == 1
    assert "  try: systemctl status rbee-hive\n" in ran.err
