"""The options that verbs share."""

from __future__ import annotations

import pytest

from tests.unit.keeper.doubles import Rbeectl
from tests.unit.played_systemd import PlayedBus


@pytest.mark.parametrize("span", ["0", "-1", "soon", "", "5 bananas"])
def test_a_timeout_that_is_none_is_a_usage_error(bus: PlayedBus, rbeectl: Rbeectl, span: str) -> None:
    ran = rbeectl("add-hive", "localhost", f"--timeout={span}")

    assert (ran.code, ran.out) == (2, "")
    assert "--timeout" in ran.err
    assert bus.asked == []
