"""The verbs of gateway."""

from __future__ import annotations

import pytest

from rbee.scope import GATEWAY_SOCKET_UNIT, GATEWAY_TCP_SOCKET_UNIT, GATEWAY_UNIT, QUEEN_UNIT
from tests.integration.keeper.played_gateway_access import GatewayAccess
from tests.unit.keeper.doubles import Rbeectl, WithQueen
from tests.unit.played_systemd import ACTIVE, INACTIVE, LISTENING, NOT_FOUND, PlayedBus


def test_its_status_is_shown_and_wakes_nobody(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    awake.address = "127.0.0.1:8510"
    awake.states |= {
        GATEWAY_UNIT: ACTIVE._replace(status_text="2 requests"), GATEWAY_TCP_SOCKET_UNIT: LISTENING,
    }  # fmt: skip
    ran = with_queen(GatewayAccess(is_open=True).handlers, lambda: rbeectl("gateway", "status"))

    lines = [line.strip() for line in ran.out.splitlines()]
    assert lines[0] == "Gateway: active (running)"
    assert lines[1].endswith("/openai.sock")
    assert lines[2:] == ["TCP open: yes", "Listening: 127.0.0.1:8510", "TLS: no", "Status: 2 requests"]
    awake.states |= {QUEEN_UNIT: INACTIVE, GATEWAY_SOCKET_UNIT: INACTIVE}
    ran = rbeectl("gateway", "status")
    assert "Unix socket: - (inactive)" in ran.out
    assert "TCP open: unknown, as the queen is not awake" in ran.out
    told = rbeectl("gateway", "status", "--json").json[0]
    assert (told["is_open"], told["listens"], told["tls"]) == (None, ["127.0.0.1:8510"], False)
    assert awake.asked == []


@pytest.mark.parametrize("verb", ["enable", "disable", "status"])
def test_without_a_gateway_its_package_is_named(bus: PlayedBus, rbeectl: Rbeectl, verb: str) -> None:
    bus.states[GATEWAY_SOCKET_UNIT] = NOT_FOUND

    ran = rbeectl("gateway", verb)

    assert ran.code == 3
    assert "rbee-gateway_*.deb" in ran.err
    assert bus.asked == []
