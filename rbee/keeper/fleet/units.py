"""The units of another machine, with systemctl there."""

from __future__ import annotations

from typing import NoReturn

from rbee.errors import CommandFailed, JobReplaced, TimedOut, UnitFailed
from rbee.keeper.fleet.ssh import Ssh
from rbee.scope import REMOTE
from rbee.systemd.unit import UnitState, check_job

SLACK = 15.0
"""Seconds more than on this machine, for the network and for a slow machine."""

PROPERTIES = "LoadState,ActiveState,SubState,Result,StatusText,MainPID,ExecMainStatus"


class RemoteUnits:
    """rbee.systemd.unit.Units, for another machine. systemctl must not ask for a password."""

    def __init__(self, ssh: Ssh) -> None:
        self._ssh = ssh

    def state(self, unit: str) -> UnitState:
        """The state of a unit; load is 'not-found' if there is none of that name."""
        shown = self._ssh.run("systemctl", "show", f"--property={PROPERTIES}", "--", unit)
        fields = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        return UnitState(
            load=fields.get("LoadState", ""),
            active=fields.get("ActiveState", ""),
            sub=fields.get("SubState", ""),
            result=fields.get("Result", ""),
            status_text=fields.get("StatusText", ""),
            main_pid=int(fields.get("MainPID", 0)),
            exit_status=int(fields.get("ExecMainStatus", 0)),
        )

    def start(self, unit: str, *, timeout: float) -> None:
        """Start a unit and wait for its job, `timeout` + SLACK s. UnitFailed, JobReplaced or TimedOut."""
        self._await_job("start", unit, timeout)

    def stop(self, unit: str, *, timeout: float) -> None:
        """As start(), but stop it."""
        self._await_job("stop", unit, timeout)

    def reset_failed(self, unit: str) -> None:
        """Reset its failed state and its start limit."""
        self._ssh.run_as_root("systemctl", "--no-ask-password", "reset-failed", "--", unit)

    def _await_job(self, verb: str, unit: str, timeout: float) -> None:
        try:
            self._ssh.run_as_root("systemctl", "--no-ask-password", verb, "--", unit, timeout=timeout + SLACK)
        except CommandFailed as error:
            self._explain(verb, unit, error)
        except TimedOut as error:
            raise TimedOut(error.message, hint=self._cure(unit)) from error

    def _explain(self, verb: str, unit: str, error: CommandFailed) -> NoReturn:
        """Raise the reason from the unit's own state, or from systemctl if the unit never started."""
        if "canceled" in error.reason:
            message = f"{unit} did not {verb}: somebody else is stopping, starting or restarting it"
            raise JobReplaced(message, hint=self._cure(unit)) from error
        state = self.state(unit)
        failure = UnitFailed(f"{unit} did not {verb}: {error.reason}", hint=self._cure(unit))
        if state.result not in ("", "success"):
            try:
                check_job(
                    unit,
                    "failed",
                    lambda: state,
                    verb,
                    cure=lambda unit, _state: self._cure(unit),
                    scope=REMOTE,
                )
            except UnitFailed as known:
                failure = UnitFailed(known.message, hint=self._for_there(known.hint))
        raise failure from error

    def _for_there(self, hint: str | None) -> str:
        """The unit's own hints as they are typed here: commands with sudo are for its machine, by ssh."""
        there = f"ssh -t {self._ssh.target} "
        return "\n".join(there * one.startswith("sudo ") + one for one in (hint or "").splitlines())

    def _cure(self, unit: str) -> str:
        there = f"ssh -t {self._ssh.target}"
        status = REMOTE.systemctl(f"status {unit}", as_root=True)
        return f"{there} {status}\n{there} {REMOTE.journalctl(f'-n 20 -u {unit}')}"
