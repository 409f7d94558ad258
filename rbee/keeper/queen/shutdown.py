"""Turning everything off: the queen tells the story of it, and systemd's word on the units is what counts."""

from __future__ import annotations

import threading
from contextlib import suppress

from rbee.errors import RbeeError, UnitFailed
from rbee.keeper.jobs import relay
from rbee.keeper.permission import explained
from rbee.keeper.queen.queen import Queen
from rbee.keeper.queen.sleep import STOP_TIMEOUT, STOP_TRIES
from rbee.keeper.queen.wake import UNITS
from rbee.keeper.work import Work
from rbee.narration import SHUTTING_DOWN_QUEEN
from rbee.scope import FORGET_UNIT, TARGET
from rbee.wire.routes import QueenRoutes

ANSWER_TIMEOUT = 2.0
"""Seconds that a queen has to take a shutdown, before systemd stops her without her word."""


def begin_shutdown(queen: Queen) -> None:
    """Have systemd stop everything, and wait for nothing."""
    if queen.state() == "awake":
        with suppress(RbeeError):  # systemd stops her all the same
            queen.client.within(ANSWER_TIMEOUT).ask(QueenRoutes.SHUTDOWN)
    with explained():
        queen.work.bus.ask_stop(TARGET)


def shut_down(queen: Queen) -> None:
    """Stop everything, hives first; returns when units and sockets are stopped."""
    work = queen.work
    telling: threading.Thread | None = None
    if queen.state() == "awake":
        work.teller.narrate(SHUTTING_DOWN_QUEEN, "Shutting down queen")
        telling = _tell(queen)
    with explained():
        up = _stop_everything(work)
    if telling is not None:
        telling.join(work.left(ANSWER_TIMEOUT))
    for unit, state in up.items():
        raise UnitFailed(f"{unit} is still {state}", hint=f"systemctl status {unit}")
    if work.bus.state(FORGET_UNIT).load == "loaded":
        # A queen who crashed before left word that she is to be woken at the next boot.
        work.bus.start(FORGET_UNIT, timeout=work.left(STOP_TIMEOUT))


def _stop_everything(work: Work) -> dict[str, str]:
    """Stop the target, again if somebody woke a unit meanwhile; what still runs, with its state."""
    up: dict[str, str] = {}
    for _ in range(STOP_TRIES):
        work.bus.stop(TARGET, timeout=work.left(STOP_TIMEOUT))
        states = {unit: work.bus.active_state(unit) for unit in UNITS}
        up = {unit: state for unit, state in states.items() if state not in ("inactive", "failed")}
        if not up:
            break
    return up


def _tell(queen: Queen) -> threading.Thread:
    """Ask the queen and tell her story beside the main thread, which waits for systemd.

    A queen that hangs does not answer; then there is no story, and systemd stops her all the same.
    """
    taken = threading.Event()

    def tell() -> None:
        try:
            for event in queen.client.tell_story(QueenRoutes.SHUTDOWN):
                taken.set()
                relay(queen.work.teller, event)
        except RbeeError:
            # Her end may cut the story short; systemd's word on the units is what counts.
            pass
        finally:
            taken.set()

    telling = threading.Thread(target=tell, name="story", daemon=True)
    telling.start()
    taken.wait(queen.work.left(ANSWER_TIMEOUT))
    return telling
