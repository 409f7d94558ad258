"""The verb show."""

from __future__ import annotations

import pytest

from rbee.wire.codec import encode
from tests.unit.keeper.doubles import Ran, Rbeectl, WithQueen, listing
from tests.unit.played_systemd import PlayedBus
from tests.unit.wire_values import HIVE_VIEW


def test_a_hives_properties_are_shown_a_line_each(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl("show", "localhost"))

    shown = dict(line.split("=", 1) for line in ran.out.splitlines())
    assert ran.code == 0
    assert shown["Id"] == "localhost"
    assert shown["State"] == "online"
    assert shown["MemoryTotal"] == str(512 * 2**30)
    assert (shown["MemoryAllowed"], shown["CPUsAllowed"]) == ("", "")  # all of it
    assert shown["GPU0Name"] == "NVIDIA GeForce RTX 4090"
    assert shown["GPU0MemoryTotal"] == str(24 * 2**30)
    assert shown["Version"] == ""  # not known
    assert shown["Wanted"] == "yes"


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        (["-p", "State"], "State=online\n"),
        (["-p", "State", "-p", "Id"], "State=online\nId=localhost\n"),
        (["--property=Id,State"], "Id=localhost\nState=online\n"),
        (["-p", "State", "--value"], "online\n"),
        (["-p", "State,Port", "--json"], '{"State": "online", "Port": "8600"}\n'),
    ],
)
def test_properties_are_chosen_as_systemctl_show_does(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, arguments: list[str], out: str
) -> None:
    assert with_queen(listing(HIVE_VIEW), lambda: rbeectl("show", "localhost", *arguments)) == Ran(0, out, "")


def test_a_property_that_there_is_not_suggests_the_near_one(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl("show", "localhost", "-p", "Sate"))

    assert (ran.code, ran.out) == (2, "")
    assert "no property 'Sate'; did you mean State" in ran.err


def test_for_programs_the_whole_hive_is_shown(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl("show", "localhost", "--json"))

    assert ran.json == [{**encode(HIVE_VIEW), "sample": None, "memory": None}]


def test_a_hive_whose_devices_are_unknown_has_no_properties_for_them(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    hive = HIVE_VIEW._replace(devices=None, last_beat_ms=None)
    ran = with_queen(listing(hive), lambda: rbeectl("show", "localhost"))

    assert "LastHeartbeatTimestamp=\n" in ran.out
    assert "CPU" not in ran.out
