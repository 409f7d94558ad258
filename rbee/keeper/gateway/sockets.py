"""The gateway's sockets: having systemd listen on them."""

from __future__ import annotations

from rbee.errors import NotRunning, with_packages
from rbee.keeper.permission import explained
from rbee.keeper.work import Work
from rbee.scope import GATEWAY_SOCKET_UNIT, GATEWAY_UNIT

START_TIMEOUT = 20.0


def is_installed(work: Work) -> bool:
    """Is the gateway installed on this machine?"""
    return work.bus.state(GATEWAY_SOCKET_UNIT).load != "not-found"


def have_listening(work: Work) -> bool:
    """Have systemd listen on the gateway's Unix socket, as after a shutdown; False if there is no gateway.

    Raises as Bus.start(), and NotPermitted with its cure.
    """
    state = work.bus.state(GATEWAY_SOCKET_UNIT)
    if state.load == "not-found":
        return False
    if state.is_active:
        return True
    with explained(work.scope):
        for unit in (GATEWAY_UNIT, GATEWAY_SOCKET_UNIT):
            if work.bus.active_state(unit) == "failed":
                work.bus.reset_failed(unit)
        work.bus.start(GATEWAY_SOCKET_UNIT, timeout=work.left(START_TIMEOUT))
    return True


def no_gateway() -> NotRunning:
    """The error on a machine whose queen has no gateway."""
    return NotRunning(
        "the gateway is not installed on this machine",
        hint=f"Install rbee-gateway {with_packages('rbee-gateway')}",
    )
