"""Sending the queen to sleep: her sockets go on listening for whoever wakes her."""

from __future__ import annotations

from rbee.errors import UnitFailed
from rbee.keeper.permission import explained
from rbee.keeper.queen.state import present_state, queen_state
from rbee.keeper.queen.wake import reset_failed
from rbee.keeper.work import Work
from rbee.narration import SENDING_TO_SLEEP
from rbee.scope import HIVE_SOCKET_UNIT, QUEEN_SOCKET_UNIT, QUEEN_UNIT

STOP_TIMEOUT = 20.0
"""Seconds for the whole cascade; two services with TimeoutStopSec=5s each fit into it."""

STOP_TRIES = 3
"""Times that everything is told to stop: who adds a hive meanwhile may have woken it again."""


def put_to_sleep(work: Work, *, waits: bool = True) -> None:
    """Stop the queen, and the local hive with her, and leave their sockets listening."""
    state = present_state(work.bus)
    with explained():
        if state not in ("asleep", "off"):
            work.teller.narrate(SENDING_TO_SLEEP, "Sending queen to sleep")
            if not waits:
                work.bus.ask_stop(QUEEN_UNIT)
                return
            _stop(work)
        for unit in (QUEEN_SOCKET_UNIT, HIVE_SOCKET_UNIT):
            # After a shutdown, or a burst of deaths, nobody listens for who would wake her.
            unit_state = work.bus.state(unit)
            if unit_state.load == "loaded" and not unit_state.is_active:
                reset_failed(work.bus)
                work.bus.start(unit, timeout=work.left(STOP_TIMEOUT))


def _stop(work: Work) -> None:
    """Stop her, again if somebody woke her meanwhile."""
    for _ in range(STOP_TRIES):
        work.bus.stop(QUEEN_UNIT, timeout=work.left(STOP_TIMEOUT))
        state = queen_state(work.bus)
        if state in ("asleep", "off", "failed"):
            return
    raise UnitFailed(
        f"somebody wakes the queen again and again: {QUEEN_UNIT} is {state}", hint="sudo rbeectl logs -n 20"
    )
