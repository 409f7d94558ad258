"""The state of the queen, as systemd reports it, without waking the queen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from rbee.errors import BadConfig, NotRunning, with_packages
from rbee.scope import QUEEN_SOCKET_UNIT, QUEEN_UNIT, Scope
from rbee.systemd.bus import Bus
from rbee.systemd.unit import UnitState, said_by

RETURN_TIMEOUT = 2.0
"""Seconds within which systemd must have restarted a queen that died during a request."""

QueenState = Literal["absent", "off", "asleep", "waking", "awake", "stopping", "failed"]
"""'absent' means that no queen is installed on this machine."""


def hint_for(state: QueenState, scope: Scope) -> str:
    """The hint for a user who needs the queen awake, by its state."""
    wake = scope.rbeectl("wake")
    hints: dict[QueenState, str] = {
        "absent": with_packages("rbee"),
        "waking": "Ask again in a moment.",
        "stopping": f"{wake}, once it has stopped",
        "failed": scope.doctor,
    }
    return hints.get(state, wake)


def queen_state(bus: Bus) -> QueenState:
    """The state of the queen, from the states of its service and its socket."""
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
    """As queen_state(); NotRunning if no queen is installed, with the address of this hive's queen."""
    state = queen_state(bus)
    if state == "absent":
        from rbee.keeper.local_hive import no_queen  # only on a machine without a queen

        raise no_queen(bus)
    return state


def settled_state(bus: Bus, left: Callable[[float], float]) -> QueenState:
    """As queen_state(); NotRunning if there is no queen or it has failed, BadConfig if it cannot run.

    A queen that cannot run may be started repeatedly by clients that wait at its sockets; each time its
    status line has the reason.
    """
    state = present_state(bus)
    # One that cannot run stops after each start, too.
    is_failing = state == "stopping" and bus.state(QUEEN_UNIT).exit_status == BadConfig.exit_code
    if state not in ("failed", "waking") and not is_failing:
        return state
    ended = bus.await_state(QUEEN_UNIT, has_ended, timeout=left(RETURN_TIMEOUT))
    message, hint = why_failed(ended, bus.scope)
    if ended.exit_status == BadConfig.exit_code:
        raise BadConfig(message, hint=hint)
    if state == "failed":
        raise NotRunning(f"{message}; this command does not wake it", hint=bus.scope.doctor)
    return queen_state(bus)


def check_awake(bus: Bus, left: Callable[[float], float]) -> None:
    """NotRunning, with a hint, if the queen is not awake."""
    state = settled_state(bus, left)
    if state != "awake":
        raise NotRunning(
            f"the queen is {state}; this command does not wake it", hint=hint_for(state, bus.scope)
        )


def has_ended(state: UnitState) -> bool:
    """Does the queen run, or is it known how it ended? While it is restarted, neither is known."""
    return state.is_active or state.exit_status != 0 or state.is_stopped


def why_failed(state: UnitState, scope: Scope) -> tuple[str, str]:
    """The message and the hint for a queen that has failed, from its status line."""
    reason, *cures = said_by(state)
    return f"the queen has failed: {reason or state.result}", "\n".join(cures) or scope.doctor
