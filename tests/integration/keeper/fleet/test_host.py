"""A host that is to be a hive."""

from __future__ import annotations

import pytest

from tests.unit.keeper.doubles import REMOTE, Opened, Rbeectl, WithQueen, listing
from tests.unit.played_systemd import PlayedBus


def test_a_hive_that_beats_needs_no_ssh_and_one_that_does_not_is_sought(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    beats = with_queen(listing(REMOTE._replace(state="pending")), lambda: rbeectl("add-hive", "gpu1"))
    assert "Requesting queen to add gpu1" in beats.out
    handlers = {**listing(REMOTE._replace(state="offline")), **Opened(awake, is_open=True).handlers}
    gone = with_queen(handlers, lambda: rbeectl("add-hive", "gpu1"))
    assert "ssh is not installed here" in gone.err
    closed = {**listing(), **Opened(awake).handlers}
    assert "try: rbeectl tcp enable" in with_queen(closed, lambda: rbeectl("add-hive", "gpu1")).err
