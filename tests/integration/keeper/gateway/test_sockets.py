"""The gateway's Unix socket."""

from __future__ import annotations

from rbee.scope import GATEWAY_SOCKET_UNIT, GATEWAY_UNIT
from tests.integration.keeper.played_models import PlayedModels
from tests.unit.keeper.doubles import Rbeectl, WithQueen
from tests.unit.played_systemd import INACTIVE, NOT_FOUND, PlayedBus


def test_a_failed_gateway_is_reset_before_its_socket_is_opened(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    failed = INACTIVE._replace(active="failed", result="start-limit-hit")
    awake.states |= {GATEWAY_UNIT: failed, GATEWAY_SOCKET_UNIT: failed}
    with_queen(PlayedModels().handlers, lambda: rbeectl("serve", "bee"))

    assert awake.asked == [
        ("reset-failed", GATEWAY_UNIT), ("reset-failed", GATEWAY_SOCKET_UNIT), ("start", GATEWAY_SOCKET_UNIT),
    ]  # fmt: skip


def test_a_machine_without_a_gateway_serves_all_the_same(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    awake.states[GATEWAY_SOCKET_UNIT] = NOT_FOUND
    ran = with_queen(PlayedModels().handlers, lambda: rbeectl("serve", "bee"))

    assert ran.code == 0
    assert "To ask it" not in ran.out
