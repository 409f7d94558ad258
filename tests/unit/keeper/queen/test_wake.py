"""Waking the queen."""

from __future__ import annotations

import pytest

import rbee.keeper.queen.wake
from rbee.errors import TimedOut, UnitFailed
from rbee.scope import QUEEN_UNIT
from rbee.systemd.unit import UnitState
from tests.unit.keeper.doubles import UNUSABLE, Rbeectl
from tests.unit.played_systemd import KILLED, PlayedBus


def test_a_queen_who_cannot_be_woken_is_told_with_her_own_words_and_the_journal_s(
    bus: PlayedBus, rbeectl: Rbeectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    bus.refusals["start", QUEEN_UNIT] = UnitFailed(
        "queen-rbee.service did not start: it said: it is damaged", hint="mv it"
    )
    monkeypatch.setattr(
        rbee.keeper.queen.wake, "journal_tail", lambda *matches, **options: [f"{matches[-1]} says", "\x1b[2J"]
    )

    ran = rbeectl("add-hive", "localhost")

    assert (ran.code, ran.out) == (1, "(bee keeper) queen is asleep, waking queen.\n")
    assert ran.err.splitlines() == [
        "rbeectl: queen-rbee.service did not start: it said: it is damaged",
        "  journal: queen-rbee.service says",
        "  journal: \\x1b[2J",
        "  try: mv it",
    ]


def test_a_queen_who_dies_again_and_again_while_she_is_woken_is_said_to(
    bus: PlayedBus, rbeectl: Rbeectl
) -> None:
    bus.refusals["start", QUEEN_UNIT] = UnitFailed("queen-rbee.service did not start: its result is 'signal'")
    bus.refusals["start unless stopping", QUEEN_UNIT] = TimedOut("it was not done after 2 s")
    bus.after["start", QUEEN_UNIT] = KILLED

    ran = rbeectl("add-hive", "localhost")

    assert ran.code == 1
    assert "did not start: its result is 'signal'" in ran.err


def test_a_queen_who_cannot_run_says_so_though_her_clients_have_her_started_again(
    bus: PlayedBus, rbeectl: Rbeectl
) -> None:
    bus.refusals["start", QUEEN_UNIT] = UnitFailed("queen-rbee.service did not start")
    bus.after["start", QUEEN_UNIT] = UnitState("loaded", "activating", "start")
    bus.later[QUEEN_UNIT] = [UNUSABLE._replace(active="deactivating", sub="stop-post")]

    ran = rbeectl("wake")

    assert (ran.code, ran.err.splitlines()[1]) == (78, "  try: mend it")
    assert "the queen died" not in ran.out
