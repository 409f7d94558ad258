"""An invitation makes a machine's hive join a queen: its content, accepting it, and machines that cannot.

The machine is this one or another. If accepting it fails, the hive is what it was before.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

from rbee.errors import BadConfig, BadInput, JobReplaced, RbeeError, UnitFailed
from rbee.keeper.local_hive import queen_dialled
from rbee.scope import HIVE_UNIT, JOIN_UNIT, REDIAL_UNIT, Scope
from rbee.systemd.bus import Bus
from rbee.systemd.unit import Units, said_by
from rbee.wire.types import LOCALHOST

STOP_TIMEOUT = 20.0

START_TIMEOUT = 35.0

RESTARTS = 5
"""Times that starting a hive is tried while somebody else restarts it, too."""

JOIN_TIMEOUT = 45.0
"""Seconds for rbee-hive-join.service; systemd allows it 40."""


def invitation(host: str, port: int, *, name: str | None, token: str | None) -> str:
    """The content of an invitation's file; without a token, the hive keeps its credential."""
    return json.dumps({"host": host, "port": port, "name": name, "token": token}) + "\n"


def has_queen(name: str, scope: Scope, where: str = "") -> RbeeError:
    """The error for a machine that has a queen, of this scope; `where` precedes commands there ('ssh …')."""
    return RbeeError(
        f"{name} has a queen of its own, and cannot be the hive of another",
        hint=f"To see that queen's hives: {where}{scope.rbeectl('list-hives')}\n"
        f"If it is not needed any more: {where}sudo apt remove rbee-queen",
    )


def is_this_machine(host: str, port: int | None, scope: Scope) -> BadInput:
    """The error for a host that is this machine."""
    again = scope.rbeectl(f"add-hive {LOCALHOST}" + ("" if port is None else f" --port {port}"))
    return BadInput(f"{host} is this machine", hint=again, field="HOST")


def restart_hive(
    bus: Units, left: Callable[[float], float], on_start: Callable[[str], None] = lambda _unit: None
) -> None:
    """Have an invitation accepted, if there is one, and then restart the hive with the new membership.

    The hive runs until the restart. `on_start` is called with each unit that is about to be started.

    Raises UnitFailed or TimedOut. The hive is then what it was before, and UnitFailed says so.
    """
    was_up = not bus.state(HIVE_UNIT).is_stopped or not bus.state(REDIAL_UNIT).is_stopped
    if bus.state(JOIN_UNIT).load == "loaded":
        # Before 0.5.0 the hive itself accepts it as it starts.
        on_start(JOIN_UNIT)
        take_up(bus, left)
    stop_within, start_within = left(STOP_TIMEOUT), left(START_TIMEOUT)
    on_start(HIVE_UNIT)
    try:
        _start_anew(bus, stop_within, start_within)
    except BaseException as error:
        if was_up:
            # By itself it returns to the membership with which it was last ready.
            with suppress(RbeeError):
                bus.reset_failed(HIVE_UNIT)
                bus.start(HIVE_UNIT, timeout=START_TIMEOUT)
        if isinstance(error, UnitFailed):
            raise UnitFailed(f"{error.message}{still(bus)}", hint=error.hint) from error
        raise


def check_no_join(bus: Bus) -> None:
    """RbeeError if another join is running: its result would be taken for this one's."""
    if not bus.state(JOIN_UNIT).is_stopped:
        raise RbeeError(
            f"another join is running: {JOIN_UNIT} ends within 40 s; wait for it, or stop it",
            hint=bus.scope.systemctl(f"stop {JOIN_UNIT}", as_root=True),
        )


def _start_anew(bus: Units, stop_within: float, start_within: float) -> None:
    """Stop the hive and start it, while another operator may be doing the same.

    Then systemd cancels the first of two jobs, which is no error: one stop and one start are enough.
    """
    with suppress(JobReplaced):
        bus.stop(HIVE_UNIT, timeout=stop_within)
    if bus.state(HIVE_UNIT).active == "failed":
        bus.reset_failed(HIVE_UNIT)
    for _ in range(RESTARTS - 1):
        with suppress(JobReplaced):
            return bus.start(HIVE_UNIT, timeout=start_within)
    return bus.start(HIVE_UNIT, timeout=start_within)


def take_up(bus: Units, left: Callable[[float], float]) -> None:
    """Have rbee-hive-join accept the invitation; the running hive is not touched. UnitFailed if it fails."""
    try:
        bus.start(JOIN_UNIT, timeout=left(JOIN_TIMEOUT))
    except UnitFailed as error:
        state = bus.state(JOIN_UNIT)
        # With any other exit status the status line is not the reason.
        reason = said_by(state)[0] if state.exit_status == BadConfig.exit_code else ""
        message = f"{reason or error.message}{still(bus)}"
        with suppress(RbeeError):
            bus.reset_failed(JOIN_UNIT)  # nothing is broken
        raise UnitFailed(message, hint=error.hint) from error
    except BaseException:
        with suppress(RbeeError):
            bus.stop(JOIN_UNIT, timeout=STOP_TIMEOUT)  # or it would join after all
            if bus.state(JOIN_UNIT).active == "failed":
                bus.reset_failed(JOIN_UNIT)  # it was ended on purpose
        raise


def still(bus: Units) -> str:
    """The end of a sentence, with the queen that a running hive still has; '' if it has none."""
    queen = queen_dialled(bus.state(HIVE_UNIT))
    return f"; the machine is still {queen}" if queen else ""
