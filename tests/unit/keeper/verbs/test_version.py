"""The verb version."""

from __future__ import annotations

from rbee import __version__
from tests.unit.keeper.doubles import BEATS, Rbeectl, has_no_queen
from tests.unit.played_systemd import ACTIVE, PlayedBus


def test_a_machine_without_a_queen_knows_its_own_version_and_where_she_is(
    bus: PlayedBus, rbeectl: Rbeectl
) -> None:
    has_no_queen(bus, ACTIVE._replace(status_text=BEATS))

    ran = rbeectl("version")

    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines()[2].split(maxsplit=2) == [
        "queen",
        "-",
        "it is on another machine, queen:8500",
    ]


def test_an_asleep_queen_is_not_asked_for_her_version(bus: PlayedBus, rbeectl: Rbeectl) -> None:
    ran = rbeectl("version")

    assert ran.code == 0
    assert ran.out.splitlines()[2].split() == ["queen", "-", "it", "is", "asleep"]
    assert rbeectl("version", "--json").json == [
        {"rbeectl": __version__, "queen": {"state": "asleep", "version": None}, "hives": []}
    ]
