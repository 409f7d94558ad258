"""An invitation has a machine's hive join a queen: what is in it, its taking up, and who cannot have one.

The machine is this one or another. Where the taking up fails, its hive is what it was before.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress

from rbee.errors import BadConfig, BadInput, JobReplaced, RbeeError, UnitFailed
from rbee.keeper.local_hive import queen_dialled
from rbee.scope import HIVE_UNIT, JOIN_UNIT, REDIAL_UNIT
from rbee.systemd.unit import Units, said_by
from rbee.wire.types import LOCALHOST

STATE = "/var/lib/rbee-hive"

INVITATION = f"{STATE}/invitation"


STOP_TIMEOUT = 20.0

START_TIMEOUT = 35.0

RESTARTS = 5
"""Times that a hive is started while others have it restarted, too."""

JOIN_TIMEOUT = 45.0
"""Seconds for rbee-hive-join.service, which systemd gives 40."""


def invitation(host: str, port: int, *, name: str | None, token: str | None) -> str:
    return json.dumps({"host": host, "port": port, "name": name, "token": token}) + "\n"


def has_queen(name: str, where: str = "") -> RbeeError:
    """`where` is what comes before a command that is for another machine."""
    return RbeeError(
        f"{name} has a queen of its own: a machine is hers, or a hive of another",
        hint=f"What that queen has: {where}rbeectl list-hives\n"
        f"If nobody needs her any more: {where}sudo apt remove rbee-queen",
    )


def is_this_machine(host: str, port: int | None) -> BadInput:
    again = f"rbeectl add-hive {LOCALHOST}" + ("" if port is None else f" --port {port}")
    return BadInput(f"{host} is this machine", hint=again, field="HOST")


def restart_hive(
    bus: Units, left: Callable[[float], float], tell: Callable[[str], None] = lambda _unit: None
) -> None:
    """Have an invitation taken up, if there is one, and then the hive started with what came of it.

    The hive runs on until it has been. Where that, or the start, fails, the hive is what it was before,
    and the error says so. `tell` is called with each unit that is about to be started.
    """
    was_up = not bus.state(HIVE_UNIT).is_stopped or not bus.state(REDIAL_UNIT).is_stopped
    if bus.state(JOIN_UNIT).load == "loaded":
        # Before 0.5.0 the hive itself takes it up as it starts.
        tell(JOIN_UNIT)
        take_up(bus, left)
    stop_within, start_within = left(STOP_TIMEOUT), left(START_TIMEOUT)
    tell(HIVE_UNIT)
    try:
        _start_anew(bus, stop_within, start_within)
    except BaseException as error:
        if was_up:
            # It goes back by itself to the membership with which it was ready last.
            with suppress(RbeeError):
                bus.reset_failed(HIVE_UNIT)
                bus.start(HIVE_UNIT, timeout=START_TIMEOUT)
        if isinstance(error, UnitFailed):
            raise UnitFailed(f"{error.message}{still(bus)}", hint=error.hint) from error
        raise


def check_no_join(bus: Units) -> None:
    """Another join's answer would be taken for this one's."""
    if not bus.state(JOIN_UNIT).is_stopped:
        raise RbeeError(
            f"another join is under way: {JOIN_UNIT} runs, for 40 s at most; wait for its end, or stop it",
            hint=f"sudo systemctl stop {JOIN_UNIT}",
        )


def _start_anew(bus: Units, stop_within: float, start_within: float) -> None:
    """Stop the hive and start it, as may do another operator at the same time.

    systemd cancels the job of whoever came first. The stop of the one is as good as that of the other,
    and two starts are one.
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
    """Have rbee-hive-join take up the invitation that there is; the hive that runs is not touched."""
    try:
        bus.start(JOIN_UNIT, timeout=left(JOIN_TIMEOUT))
    except UnitFailed as error:
        state = bus.state(JOIN_UNIT)
        # Of one that died otherwise, its last words say nothing.
        said = said_by(state)[0] if state.exit_status == BadConfig.exit_code else ""
        told = f"{said or error.message}{still(bus)}"
        with suppress(RbeeError):
            bus.reset_failed(JOIN_UNIT)  # nothing is broken
        raise UnitFailed(told, hint=error.hint) from error
    except BaseException:
        with suppress(RbeeError):
            bus.stop(JOIN_UNIT, timeout=STOP_TIMEOUT)  # or it would join when nobody waits for it any more
            if bus.state(JOIN_UNIT).active == "failed":
                bus.reset_failed(JOIN_UNIT)  # to be ended is no fault
        raise


def still(bus: Units) -> str:
    """The end of a sentence, with what a hive that runs is all the same."""
    found = queen_dialled(bus.state(HIVE_UNIT))
    return f"; the machine is still {found}" if found else ""
