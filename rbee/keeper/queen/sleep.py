"""Sending the queen to sleep: its sockets stay open, and the next client wakes it."""

from __future__ import annotations

from rbee.errors import UnitFailed
from rbee.keeper.permission import explained
from rbee.keeper.queen.state import present_state, queen_state
from rbee.keeper.queen.wake import reset_failed
from rbee.keeper.work import Work
from rbee.narration import SENDING_TO_SLEEP
from rbee.scope import GATEWAY_SOCKET_UNIT, HIVE_SOCKET_UNIT, QUEEN_SOCKET_UNIT, QUEEN_UNIT

STOP_TIMEOUT = 20.0
"""Seconds for the whole cascade; two services with TimeoutStopSec=5s each fit into it."""

STOP_TRIES = 3
"""Times that everything is stopped: somebody who adds a hive meanwhile wakes it again."""


def put_to_sleep(work: Work, *, waits: bool = True) -> None:
    """Stop the queen and with it the local hive, and leave sockets listening, the gateway's too.

    Workers and the gateway keep running.
    """
    state = present_state(work.bus)
    with explained(work.scope):
        if state not in ("asleep", "off"):
            work.teller.narrate(SENDING_TO_SLEEP, "Sending queen to sleep")
            if not waits:
                work.bus.ask_stop(QUEEN_UNIT)
                return
            _stop(work)
        for unit in (QUEEN_SOCKET_UNIT, HIVE_SOCKET_UNIT, GATEWAY_SOCKET_UNIT):
            # After a shutdown or several failures in a row, the socket does not listen; that of the hive
            # stops with the hive.
            unit_state = work.bus.state(unit)
            if unit_state.load == "loaded" and not unit_state.is_active:
                reset_failed(work.bus)
                work.bus.start(unit, timeout=work.left(STOP_TIMEOUT))


def _stop(work: Work) -> None:
    """Stop the queen, again if somebody woke it meanwhile."""
    for _ in range(STOP_TRIES):
        work.bus.stop(QUEEN_UNIT, timeout=work.left(STOP_TIMEOUT))
        state = queen_state(work.bus)
        if state in ("asleep", "off", "failed"):
            return
    raise UnitFailed(
        f"the queen is woken each time that it is stopped: {QUEEN_UNIT} is {state}",
        hint=work.scope.rbeectl("logs -n 20", as_root=True),
    )
