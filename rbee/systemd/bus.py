"""systemd as rbee knows it: its units, by name or as objects, and the machine that it runs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from rbee.errors import TimedOut
from rbee.systemd.connection import Connection
from rbee.systemd.unit import Unit, UnitState
from rbee.text import shown_span

if TYPE_CHECKING:
    from rbee.wire.heartbeats import MachineEnd

REBOOTS = ("reboot.target", "kexec.target", "soft-reboot.target")
"""The targets after which the machine boots again (systemd.special(7))."""


class Bus(Connection):
    """The units of a scope, and systemd itself. A method with a unit's name is Unit's, for that unit."""

    def unit(self, name: str) -> Unit:
        """The unit of that name, whether it exists or not."""
        return Unit(self, name)

    def state(self, unit: str) -> UnitState:
        """Return its state now; load is 'not-found' without such a unit. Raises UnitFailed or TimedOut."""
        return self.unit(unit).state()

    def active_state(self, unit: str) -> str:
        """Return its ActiveState, by one call. Raises UnitFailed or TimedOut."""
        return self.unit(unit).active_state()

    def file_state(self, unit: str) -> tuple[str, bool]:
        """Return its UnitFileState and NeedDaemonReload. Raises UnitFailed or TimedOut."""
        return self.unit(unit).file_state()

    def socket_access(self, unit: str) -> tuple[str, str, int]:
        """Return user, group and mode of a socket unit. Raises UnitFailed or TimedOut."""
        return self.unit(unit).socket_access()

    def listen_addresses(self, unit: str) -> list[tuple[str, str]]:
        """Return kind and address of each Listen…= of a socket. Raises UnitFailed or TimedOut."""
        return self.unit(unit).listen_addresses()

    def has_job(self, unit: str) -> bool:
        """Does systemd have a job for the unit? Raises UnitFailed or TimedOut."""
        return self.unit(unit).has_job()

    def failing_state(self, unit: str, *, timeout: float) -> UnitState:
        """Return the state of a failing unit once it has the reason, or after `timeout` seconds.

        Raises UnitFailed, and TimedOut if systemd does not answer.
        """
        return self.unit(unit).failing_state(timeout=timeout)

    def await_state(self, unit: str, is_awaited: Callable[[UnitState], bool], *, timeout: float) -> UnitState:
        """Return the state once it `is_awaited`, or after `timeout` seconds.

        Raises UnitFailed, and TimedOut if systemd does not answer.
        """
        return self.unit(unit).await_state(is_awaited, timeout=timeout)

    def ask_start(self, unit: str) -> str:
        """Queue a start and return the job's object path. Raises NotPermitted, UnitFailed or TimedOut."""
        return self.unit(unit).ask_start()

    def ask_stop(self, unit: str) -> str:
        """Queue a stop and return the job's object path. Raises NotPermitted, UnitFailed or TimedOut."""
        return self.unit(unit).ask_stop()

    def reset_failed(self, unit: str) -> None:
        """Have the unit not be failed any more. Raises NotPermitted, UnitFailed or TimedOut."""
        self.unit(unit).reset_failed()

    def start(self, unit: str, *, timeout: float, undo_stop: bool = True) -> None:
        """Start the unit and await its job.

        Raises NotPermitted, UnitFailed if the job failed, TimedOut after `timeout` seconds, and without
        `undo_stop` Stopping if the unit is being stopped.
        """
        self.unit(unit).start(timeout=timeout, undo_stop=undo_stop)

    def stop(self, unit: str, *, timeout: float) -> None:
        """Stop the unit and await its job. Raises NotPermitted, UnitFailed, or TimedOut after `timeout` s."""
        self.unit(unit).stop(timeout=timeout)

    def restart(self, unit: str, *, timeout: float) -> None:
        """Restart the unit by one job and await it. Raises as stop()."""
        self.unit(unit).restart(timeout=timeout)

    # systemd itself

    def await_idle(self, units: Iterable[str], *, timeout: float) -> None:
        """Wait until systemd has no job for any of these units; TimedOut after `timeout` seconds."""
        self.on_job_removed(lambda job, unit, result: None)
        deadline = time.monotonic() + timeout
        self.pump()
        while any(self.has_job(unit) for unit in units):
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimedOut(
                    f"systemd was not done after {shown_span(timeout)}",
                    hint=self.scope.systemctl("list-jobs"),
                )
            self.wait(min(left, 0.5))

    def reload(self) -> None:
        """Reload: have systemd read the unit files again, as root."""
        self.call(b"Reload", doing="reloading the unit files")

    def machine_end(self, *, last_call: float = math.inf) -> MachineEnd | None:
        """How the machine ends, if systemd is stopping everything; None if it is not.

        Raises TimedOut instead of a call that would begin after `last_call`, of time.monotonic().
        """
        if self.manager_text(b"SystemState", doing="asking systemd how the machine is") != "stopping":
            return None
        for unit in REBOOTS:
            if time.monotonic() > last_call:
                raise TimedOut(
                    "systemd did not report in time whether the machine is shutting down",
                    hint=self.scope.doctor,
                )
            if self.has_job(unit):
                return "rebooting"
        return "shutting-down"
