"""How what was asked for is told: quiet, with colour or without, in a pager, with a queen that is served."""

from __future__ import annotations

from rbee.wire.routes import QueenRoutes
from tests.unit.keeper.doubles import ADDED, Ran, Rbeectl, WithQueen, listing
from tests.unit.played_systemd import PlayedBus
from tests.unit.wire_values import HIVE_VIEW


def test_quiet_says_nothing_but_errors(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    assert with_queen({QueenRoutes.ADD_HIVE: ADDED}, lambda: rbeectl("-q", "add-hive", "localhost")) == Ran(
        0, "", ""
    )
    assert with_queen(listing(HIVE_VIEW), lambda: rbeectl("list-hives", "-q")) == Ran(0, "", "")
    failed = with_queen(listing(), lambda: rbeectl("list-devices", "nowhere", "-q"))
    assert (failed.code, failed.out) == (4, "")
    assert failed.err


def test_a_table_without_legend_is_its_rows(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl("list-hives", "--no-legend"))
    assert len(ran.out.splitlines()) == 1
    assert ran.out.startswith(HIVE_VIEW.id)

    assert with_queen(listing(), lambda: rbeectl("list-hives", "--no-legend")) == Ran(0, "", "")


def test_a_pipe_gets_no_colour(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    ran = with_queen({QueenRoutes.ADD_HIVE: ADDED}, lambda: rbeectl("add-hive", "localhost"))

    assert "\033" not in ran.out
