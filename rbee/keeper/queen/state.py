"""How the queen is, as systemd says it; nobody is woken to tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from rbee.errors import BadConfig, NotRunning, with_packages
from rbee.scope import QUEEN_SOCKET_UNIT, QUEEN_UNIT, SYSTEM
from rbee.systemd.bus import Bus
from rbee.systemd.unit import UnitState, said_by

RETURN_TIMEOUT = 2.0
"""Seconds in which systemd must have brought a queen back who died while she was asked."""

QueenState = Literal["absent", "off", "asleep", "waking", "awake", "stopping", "failed"]
"""'absent' is one that is not installed on this machine."""

HINTS: dict[QueenState, str] = {
    "absent": with_packages("rbee"),
    "off": "rbeectl wake",
    "asleep": "rbeectl wake",
    "waking": "Ask again in a moment.",
    "stopping": "rbeectl wake, once she has stopped",
    "failed": SYSTEM.doctor,
}
"""What helps those who need her awake."""


def queen_state(bus: Bus) -> QueenState:
    """What the queen is, as systemd says."""
    active = bus.active_state(QUEEN_UNIT)
    if active == "inactive":
        if bus.active_state(QUEEN_SOCKET_UNIT) == "active":
            return "asleep"
        return "absent" if bus.state(QUEEN_UNIT).load == "not-found" else "off"
    names: dict[str, QueenState] = {
        "activating": "waking",
        "deactivating": "stopping",
        "failed": "failed",
    }
    return names.get(active, "awake")


def present_state(bus: Bus) -> QueenState:
    """As queen_state(); NotRunning where no queen is installed, with where one is."""
    state = queen_state(bus)
    if state == "absent":
        from rbee.keeper.local_hive import no_queen  # with what its hive says, where there is none

        raise no_queen(bus)
    return state


def settled_state(bus: Bus, left: Callable[[float], float]) -> QueenState:
    """As queen_state(), but why there is no queen, or why she cannot run, is raised.

    One who cannot run may be started again and again by whoever waits at her sockets: she says why at
    each end.
    """
    state = present_state(bus)
    if state not in ("failed", "waking"):
        return state
    ended = bus.await_state(QUEEN_UNIT, has_ended, timeout=left(RETURN_TIMEOUT))
    message, hint = why_failed(ended)
    if ended.exit_status == BadConfig.exit_code:
        raise BadConfig(message, hint=hint)
    if state == "failed":
        raise NotRunning(f"{message}; looking does not wake her", hint=HINTS["failed"])
    return queen_state(bus)


def check_awake(bus: Bus, left: Callable[[float], float]) -> None:
    """NotRunning, with what helps, where she is not awake."""
    state = settled_state(bus, left)
    if state != "awake":
        raise NotRunning(f"the queen is {state}; looking does not wake her", hint=HINTS[state])


def has_ended(state: UnitState) -> bool:
    """Is she up, or is known how she ended? Of one who starts anew it is not, until she has ended again."""
    return state.is_active or state.exit_status != 0 or state.is_stopped


def why_failed(state: UnitState) -> tuple[str, str]:
    """What a queen said of her end, and what helps."""
    said, *cures = said_by(state)
    return f"the queen has failed: {said or state.result}", "\n".join(cures) or HINTS["failed"]
