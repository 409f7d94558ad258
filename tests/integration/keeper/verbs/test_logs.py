"""The verb logs, with a queen that is served."""

from __future__ import annotations

from collections.abc import Callable

from tests.unit.keeper.doubles import Rbeectl, WithQueen, listing
from tests.unit.played_systemd import PlayedBus
from tests.unit.wire_values import HIVE_VIEW


def test_the_log_of_a_hive_that_an_awake_queen_does_not_know_is_refused(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, executed: Callable[[], list[str]]
) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl("logs", "nosuch"))

    assert (ran.code, ran.out) == (4, "")
    assert "hive 'nosuch' is not in the hive catalog" in ran.err
    assert with_queen(listing(HIVE_VIEW), lambda: rbeectl("logs", HIVE_VIEW.id.upper())).code == 0
    assert f"RBEE_HIVE={HIVE_VIEW.id}" in executed()
