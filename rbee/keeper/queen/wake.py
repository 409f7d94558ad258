"""Waking the queen, and having her back who died meanwhile."""

from __future__ import annotations

from rbee.errors import BadConfig, Disconnected, RbeeError, TimedOut, UnitFailed, Unreachable
from rbee.keeper.permission import explained
from rbee.keeper.queen.state import RETURN_TIMEOUT, has_ended, present_state, queen_state, why_failed
from rbee.keeper.work import Work
from rbee.narration import QUEEN_ASLEEP, QUEEN_LOST, QUEEN_RETURNED
from rbee.scope import HIVE_SOCKET_UNIT, HIVE_UNIT, QUEEN_SOCKET_UNIT, QUEEN_UNIT, TCP_SOCKET_UNIT
from rbee.systemd.bus import Bus
from rbee.systemd.journal import journal_tail
from rbee.systemd.unit import unusable

START_TIMEOUT = 35.0
"""Seconds for the queen's start job; her TimeoutStartSec= is 30 s, so that systemd's word comes first."""

UNITS = (HIVE_UNIT, QUEEN_UNIT, HIVE_SOCKET_UNIT, QUEEN_SOCKET_UNIT, TCP_SOCKET_UNIT)
"""What a queen's machine runs of rbee, in the order of a shutdown."""


def can_be_woken(bus: Bus) -> bool:
    """False for a queen who is awake; NotRunning where none is installed."""
    return present_state(bus) != "awake"


def begin_waking(work: Work) -> None:
    """Have systemd start her, if she is not awake, and wait for nothing."""
    if can_be_woken(work.bus):
        work.teller.narrate(QUEEN_ASLEEP, "queen is asleep, waking queen.")
        with explained():
            reset_failed(work.bus)
            work.bus.ask_start(QUEEN_UNIT)


def have_awake(work: Work) -> None:
    """Have her serve; one who dies on the way is awaited once more."""
    if can_be_woken(work.bus):
        try:
            _start(work, timeout=START_TIMEOUT)
        except UnitFailed as error:
            _wake_again(work, error)


def await_return(work: Work, lost: Disconnected) -> None:
    """Wait until systemd has brought a queen back who died; raises `lost` if she was told to go."""
    if queen_state(work.bus) in ("asleep", "off"):
        raise lost
    work.teller.narrate(QUEEN_LOST, "the queen died, waiting for systemd to bring her back.")
    try:
        _start(work, timeout=RETURN_TIMEOUT, undo_stop=False)
    except RbeeError as error:
        raise Unreachable(
            f"the queen died, and was not back within {RETURN_TIMEOUT:g} s: {error.message}",
            hint=f"systemctl status {QUEEN_UNIT}",
        ) from error
    work.teller.narrate(QUEEN_RETURNED, "the queen is back, asking her again.")


def reset_failed(bus: Bus) -> None:
    """A burst of deaths ends in start-limit-hit, for the service and for who listens for it."""
    for unit in UNITS:
        if bus.active_state(unit) == "failed":
            bus.reset_failed(unit)


def _start(work: Work, *, timeout: float, undo_stop: bool = True) -> None:
    with explained():
        reset_failed(work.bus)
        work.bus.start(QUEEN_UNIT, timeout=work.left(timeout), undo_stop=undo_stop)


def _wake_again(work: Work, failed: UnitFailed) -> None:
    """One who died on the way is started anew by systemd; raises `failed` if that did not help either.

    So is one who cannot run at all, by whoever waits at her sockets: she says why at each end.
    """
    if failed.exit_status != BadConfig.exit_code and queen_state(work.bus) == "waking":
        ended = work.bus.await_state(QUEEN_UNIT, has_ended, timeout=work.left(RETURN_TIMEOUT))
        if ended.exit_status == BadConfig.exit_code:
            message, hint = why_failed(ended)
            raise BadConfig(message, hint=hint) from failed
        work.teller.narrate(QUEEN_LOST, "the queen died, waiting for systemd to bring her back.")
        try:
            return _start(work, timeout=RETURN_TIMEOUT, undo_stop=False)
        except (UnitFailed, TimedOut):
            pass  # what she died of at first says more
    failure = unusable(failed)
    for line in journal_tail("--unit", QUEEN_UNIT):
        failure.add_note(line)
    raise failure from failed
