"""Turning everything off: the queen narrates it, and the states of the units decide whether it is done."""

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
from rbee.scope import FETCHES, FORGET_UNIT, TARGET, WORKERS
from rbee.systemd.links import running
from rbee.wire.routes import QueenRoutes

ANSWER_TIMEOUT = 2.0
"""Seconds for the queen to accept a shutdown, before systemd stops it all the same."""


def begin_shutdown(queen: Queen) -> None:
    """Have systemd stop everything, without waiting for it."""
    if queen.state() == "awake":
        with suppress(RbeeError):  # systemd stops it all the same
            queen.client.within(ANSWER_TIMEOUT).ask(QueenRoutes.SHUTDOWN)
    with explained(queen.work.scope):
        queen.work.bus.ask_stop(TARGET)


def shut_down(queen: Queen) -> None:
    """Stop everything, hives first; returns when all units and sockets are stopped, or raises UnitFailed."""
    work = queen.work
    story: _Story | None = None
    if queen.state() == "awake":
        work.teller.narrate(SHUTTING_DOWN_QUEEN, "Shutting down queen")
        story = _Story(queen)
        story.begin()
    with explained(work.scope):
        up = _stop_everything(work)
    if story is not None:
        story.end(work.left(ANSWER_TIMEOUT))
    for unit, state in up.items():
        raise UnitFailed(f"{unit} is still {state}", hint=work.scope.systemctl(f"status {unit}"))
    if work.bus.state(FORGET_UNIT).load == "loaded":
        # A queen that crashed before has left the file that has it woken at the next boot.
        work.bus.start(FORGET_UNIT, timeout=work.left(STOP_TIMEOUT))


def _stop_everything(work: Work) -> dict[str, str]:
    """Stop the target, again if a unit was woken meanwhile; the units that still run, with their states."""
    up: dict[str, str] = {}
    for _ in range(STOP_TRIES):
        work.bus.stop(TARGET, timeout=work.left(STOP_TIMEOUT))
        units = [*running(WORKERS, scope=work.scope), *running(FETCHES, scope=work.scope), *UNITS]
        states = {unit: work.bus.active_state(unit) for unit in units}
        up = {unit: state for unit, state in states.items() if state not in ("inactive", "failed")}
        if not up:
            break
    return up


class _Story:
    """The story of a shutdown, relayed in a thread while the main thread waits for systemd.

    A queen that hangs does not answer; then there is no story, and systemd stops it all the same.
    """

    def __init__(self, queen: Queen) -> None:
        self._queen = queen
        self._accepted = threading.Event()
        self._relaying = threading.Lock()
        self._is_over = False
        self._thread = threading.Thread(target=self._relay, name="story", daemon=True)

    def begin(self) -> None:
        """Request the shutdown; return once the queen has accepted it, or after ANSWER_TIMEOUT."""
        self._thread.start()
        self._accepted.wait(self._queen.work.left(ANSWER_TIMEOUT))

    def end(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for the story's end; after that nothing more is narrated."""
        self._thread.join(timeout)
        with self._relaying:
            self._is_over = True

    def _relay(self) -> None:
        try:
            for event in self._queen.client.tell_story(QueenRoutes.SHUTDOWN):
                self._accepted.set()
                with self._relaying:
                    if self._is_over:
                        return
                    relay(self._queen.work.teller, event)
        except RbeeError:
            # The queen's end may cut the story short; the states of the units decide.
            pass
        finally:
            self._accepted.set()
