"""The verb top, with a queen that is served."""

from __future__ import annotations

import json

import pytest

from rbee.scope import QUEEN_UNIT
from rbee.wire.codec import encode
from tests.unit.keeper.doubles import SAMPLE, Rbeectl, WithQueen, listing, sampling
from tests.unit.played_systemd import INACTIVE, PlayedBus
from tests.unit.wire_values import HIVE_VIEW


def test_without_a_terminal_one_frame_comes_after_the_other(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen(listing(HIVE_VIEW) | sampling(SAMPLE), lambda: rbeectl("top", "-n", "2", "-d", "10ms"))

    assert ran.code == 0
    assert ran.out.count("the queen is awake") == 2
    assert ran.out.count("42%") == 2
    assert "\x1b" not in ran.out


def test_for_programs_a_frame_is_a_line(awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    queen = listing(HIVE_VIEW) | sampling(SAMPLE)
    ran = with_queen(queen, lambda: rbeectl("top", "-n", "3", "-d", "10ms", "--json"))

    assert len(ran.json) == 3
    for told in ran.json:
        assert told["queen"] == "awake"
        assert told["hives"] == [{**encode(HIVE_VIEW), "sample": encode(SAMPLE)}]


def test_a_queen_who_goes_meanwhile_is_not_asked_on(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        awake.states[QUEEN_UNIT] = INACTIVE

    monkeypatch.setattr("rbee.keeper.verbs.top.time.sleep", sleep)
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl("top", "-n", "2", "--json"))

    first, second = (json.loads(line) for line in ran.out.splitlines())
    assert (first["queen"], second["queen"], second["hives"]) == ("awake", "asleep", None)
    assert slept == [2.0]
