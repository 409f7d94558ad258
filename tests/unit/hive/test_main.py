"""What the program rbee-hive asks systemd at its end."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import rbee.hive.__main__
from rbee.errors import Unreachable
from rbee.hive.__main__ import CALL_TIMEOUT, MACHINE_END_TIMEOUT, _machine_end
from rbee.hive.heartbeat import GOODBYE_TIMEOUT
from rbee.hive.remote import FAREWELL_TIMEOUT
from rbee.scope import SYSTEM, Scope
from rbee.server.uvicorn import GRACE
from tests.unit.played_systemd import PlayedBus


@pytest.mark.parametrize("end", ["rebooting", "shutting-down", None])
def test_the_last_beat_says_whether_the_machine_goes_down(monkeypatch: pytest.MonkeyPatch, end: Any) -> None:
    monkeypatch.setattr(rbee.hive.__main__, "Bus", PlayedBus(ending=end))

    assert _machine_end(SYSTEM) == end


def test_a_bus_that_does_not_answer_keeps_no_hive_from_its_goodbye(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(_scope: Scope, *, timeout: float) -> PlayedBus:
        raise Unreachable("there is no bus")

    monkeypatch.setattr(rbee.hive.__main__, "Bus", unreachable)

    assert _machine_end(SYSTEM) is None


def test_a_hive_that_stops_ends_before_systemd_kills_it() -> None:
    (stop,) = re.findall(r"(?m)^TimeoutStopSec=(\d+)s$", Path("units/rbee-hive.service").read_text())

    farewell = max(FAREWELL_TIMEOUT, 2 * GOODBYE_TIMEOUT)  # of a queen elsewhere, and of that of this machine
    assert farewell + MACHINE_END_TIMEOUT + GRACE < float(stop)
    assert MACHINE_END_TIMEOUT >= 2 * CALL_TIMEOUT  # the greeting, and the first call
