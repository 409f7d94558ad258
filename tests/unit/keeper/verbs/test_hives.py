"""Hives and hosts that cannot be: nobody is woken for them."""

from __future__ import annotations

import pytest

from tests.unit.keeper.doubles import Rbeectl
from tests.unit.played_systemd import PlayedBus


@pytest.mark.parametrize("port", ["0", "-1", "65536", "99999999999999999999"])
def test_a_port_that_is_none_is_refused_before_any_unit_is_started(
    bus: PlayedBus, rbeectl: Rbeectl, port: str
) -> None:
    ran = rbeectl("add-hive", "localhost", "--port", port)

    assert (ran.code, ran.out) == (2, "")
    assert "port must be from 1 to 65535" in ran.err
    assert bus.asked == []


@pytest.mark.parametrize("host", ["", "x" * 254])
def test_a_host_that_is_none_is_refused_before_any_unit_is_started(
    bus: PlayedBus, rbeectl: Rbeectl, host: str
) -> None:
    ran = rbeectl("add-hive", host)

    assert (ran.code, ran.out) == (2, "")
    assert "HOST must have 1 to 253 characters" in ran.err
    assert bus.asked == []


@pytest.mark.parametrize("hive", ["", "a b", "..", "x" * 254])
def test_a_hive_that_cannot_be_is_not_worth_waking_the_queen(
    bus: PlayedBus, rbeectl: Rbeectl, hive: str
) -> None:
    ran = rbeectl("remove-hive", hive)

    assert (ran.code, ran.out) == (2, "")
    assert bus.asked == []
