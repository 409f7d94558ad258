"""Waking the queen, and waiting for its return after it died."""

from __future__ import annotations

from rbee.errors import BadConfig, Disconnected, RbeeError, TimedOut, UnitFailed, Unreachable
from rbee.keeper.permission import explained
from rbee.keeper.queen.state import RETURN_TIMEOUT, has_ended, present_state, queen_state, why_failed
from rbee.keeper.work import Work
from rbee.narration import QUEEN_ASLEEP, QUEEN_LOST, QUEEN_RETURNED
from rbee.scope import (
    GATEWAY_SOCKET_UNIT,
    GATEWAY_TCP_SOCKET_UNIT,
    GATEWAY_UNIT,
    HIVE_SOCKET_UNIT,
    HIVE_UNIT,
    QUEEN_SOCKET_UNIT,
    QUEEN_UNIT,
    TCP_SOCKET_UNIT,
)
from rbee.systemd.bus import Bus
from rbee.systemd.journal import journal_tail
from rbee.systemd.unit import unusable

START_TIMEOUT = 35.0
"""Seconds for the queen's start job; longer than its TimeoutStartSec=30s, so that systemd reports first."""

UNITS = (
    GATEWAY_UNIT, HIVE_UNIT, QUEEN_UNIT,
    GATEWAY_SOCKET_UNIT, GATEWAY_TCP_SOCKET_UNIT, HIVE_SOCKET_UNIT, QUEEN_SOCKET_UNIT, TCP_SOCKET_UNIT,
)  # fmt: skip
"""rbee's units on the queen's machine, in the order of a shutdown."""


def can_be_woken(bus: Bus) -> bool:
    """False if the queen is awake; NotRunning if none is installed."""
    return present_state(bus) != "awake"


def begin_waking(work: Work) -> None:
    """Have systemd start the queen, if it is not awake, without waiting for it."""
    if can_be_woken(work.bus):
        work.teller.narrate(QUEEN_ASLEEP, "queen is asleep, waking queen.")
        with explained(work.scope):
            reset_failed(work.bus)
            work.bus.ask_start(QUEEN_UNIT)


def have_awake(work: Work) -> None:
    """Start the queen, if it is not awake, and wait until it serves; if it dies meanwhile, wait once more."""
    if can_be_woken(work.bus):
        try:
            _start(work, timeout=START_TIMEOUT)
        except UnitFailed as error:
            _wake_again(work, error)


def await_return(work: Work, lost: Disconnected) -> None:
    """Wait until systemd has restarted a queen that died; raises `lost` if it was stopped on purpose."""
    if queen_state(work.bus) in ("asleep", "off"):
        raise lost
    work.teller.narrate(QUEEN_LOST, "the queen died, waiting for systemd to bring her back.")
    try:
        _start(work, timeout=RETURN_TIMEOUT, undo_stop=False)
    except RbeeError as error:
        raise Unreachable(
            f"the queen died, and was not back within {RETURN_TIMEOUT:g} s: {error.message}",
            hint=work.scope.systemctl(f"status {QUEEN_UNIT}"),
        ) from error
    work.teller.narrate(QUEEN_RETURNED, "the queen is back, asking her again.")


def reset_failed(bus: Bus) -> None:
    """Reset failed units: several failures in a row end in start-limit-hit, for services and sockets."""
    for unit in UNITS:
        if bus.active_state(unit) == "failed":
            bus.reset_failed(unit)


def _start(work: Work, *, timeout: float, undo_stop: bool = True) -> None:
    with explained(work.scope):
        reset_failed(work.bus)
        work.bus.start(QUEEN_UNIT, timeout=work.left(timeout), undo_stop=undo_stop)


def _wake_again(work: Work, failed: UnitFailed) -> None:
    """Wait for a queen that died while starting, which systemd restarts; raises `failed` if that fails, too.

    A queen that cannot run at all is restarted by clients that wait at its sockets; each time its status
    line has the reason.
    """
    if failed.exit_status != BadConfig.exit_code and queen_state(work.bus) == "waking":
        ended = work.bus.await_state(QUEEN_UNIT, has_ended, timeout=work.left(RETURN_TIMEOUT))
        if ended.exit_status == BadConfig.exit_code:
            message, hint = why_failed(ended, work.scope)
            raise BadConfig(message, hint=hint) from failed
        work.teller.narrate(QUEEN_LOST, "the queen died, waiting for systemd to bring her back.")
        try:
            return _start(work, timeout=RETURN_TIMEOUT, undo_stop=False)
        except (UnitFailed, TimedOut):
            pass  # the first failure says more
    failure = unusable(failed)
    for line in journal_tail("--unit", QUEEN_UNIT, scope=work.scope):
        failure.add_note(line)
    raise failure from failed
