"""What the program rbee-hive asks systemd at its end."""

from __future__ import annotations

from typing import Any

import pytest

import rbee.hive.__main__
from rbee.errors import Unreachable
from rbee.hive.__main__ import _machine_end
from rbee.scope import SYSTEM, Scope
from tests.unit.played_systemd import PlayedBus


@pytest.mark.parametrize("end", ["rebooting", "shutting-down", None])
def test_the_last_beat_says_whether_the_machine_goes_down(monkeypatch: pytest.MonkeyPatch, end: Any) -> None:
    monkeypatch.setattr(rbee.hive.__main__, "Bus", PlayedBus(ending=end))

    assert _machine_end(SYSTEM) == end


def test_a_bus_that_does_not_answer_keeps_no_hive_from_its_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(_scope: Scope) -> PlayedBus:
        raise Unreachable("there is no bus")

    monkeypatch.setattr(rbee.hive.__main__, "Bus", unreachable)

    assert _machine_end(SYSTEM) is None
