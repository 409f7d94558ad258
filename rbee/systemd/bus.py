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
        return self.unit(unit).state()

    def active_state(self, unit: str) -> str:
        return self.unit(unit).active_state()

    def file_state(self, unit: str) -> tuple[str, bool]:
        return self.unit(unit).file_state()

    def socket_access(self, unit: str) -> tuple[str, str, int]:
        return self.unit(unit).socket_access()

    def listen_addresses(self, unit: str) -> list[tuple[str, str]]:
        return self.unit(unit).listen_addresses()

    def has_job(self, unit: str) -> bool:
        return self.unit(unit).has_job()

    def failing_state(self, unit: str, *, timeout: float) -> UnitState:
        return self.unit(unit).failing_state(timeout=timeout)

    def await_state(self, unit: str, is_awaited: Callable[[UnitState], bool], *, timeout: float) -> UnitState:
        return self.unit(unit).await_state(is_awaited, timeout=timeout)

    def ask_start(self, unit: str) -> str:
        return self.unit(unit).ask_start()

    def ask_stop(self, unit: str) -> str:
        return self.unit(unit).ask_stop()

    def reset_failed(self, unit: str) -> None:
        self.unit(unit).reset_failed()

    def start(self, unit: str, *, timeout: float, undo_stop: bool = True) -> None:
        self.unit(unit).start(timeout=timeout, undo_stop=undo_stop)

    def stop(self, unit: str, *, timeout: float) -> None:
        self.unit(unit).stop(timeout=timeout)

    def restart(self, unit: str, *, timeout: float) -> None:
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
