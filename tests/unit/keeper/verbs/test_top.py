"""The verb top."""

from __future__ import annotations

import pytest

from tests.unit.keeper.doubles import Rbeectl
from tests.unit.played_systemd import PlayedBus


def test_top_wakes_nobody(bus: PlayedBus, rbeectl: Rbeectl) -> None:
    ran = rbeectl("top")

    assert (ran.code, ran.out) == (3, "")
    assert bus.asked == []


@pytest.mark.parametrize("arguments", [["-d", "0"], ["-d", "soon"], ["-n", "0"], ["localhost"]], ids=" ".join)
def test_a_usage_error_exits_2(bus: PlayedBus, rbeectl: Rbeectl, arguments: list[str]) -> None:
    assert rbeectl("top", *arguments).code == 2
