"""The verb top."""

from __future__ import annotations

import pytest

from tests.unit.keeper.doubles import Bus, Rbeectl


def test_top_wakes_nobody(bus: Bus, rbeectl: Rbeectl) -> None:
    ran = rbeectl("top")

    assert (ran.code, ran.out) == (3, "")
    assert bus.asked == []


@pytest.mark.parametrize("arguments", [["-d", "0"], ["-d", "soon"], ["-n", "0"], ["localhost"]], ids=" ".join)
def test_a_usage_error_exits_2(bus: Bus, rbeectl: Rbeectl, arguments: list[str]) -> None:
    assert rbeectl("top", *arguments).code == 2
