"""The units of another machine, by the systemctl there."""

from __future__ import annotations

from typing import NoReturn

from rbee.errors import CommandFailed, JobReplaced, TimedOut, UnitFailed
from rbee.keeper.fleet.ssh import Ssh
from rbee.systemd.unit import UnitState, check_job

SLACK = 15.0
"""Seconds more than on this machine: for the network, and for a machine that is slow."""

PROPERTIES = "LoadState,ActiveState,SubState,Result,StatusText,MainPID,ExecMainStatus"


class RemoteUnits:
    """As rbee.systemd.bus.Bus has those of this machine. Nothing here can ask for a password."""

    def __init__(self, ssh: Ssh) -> None:
        self._ssh = ssh

    def state(self, unit: str) -> UnitState:
        """What the unit is doing now. A unit that is not there has load 'not-found'."""
        shown = self._ssh.run("systemctl", "show", f"--property={PROPERTIES}", "--", unit)
        told = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
        return UnitState(
            load=told.get("LoadState", ""),
            active=told.get("ActiveState", ""),
            sub=told.get("SubState", ""),
            result=told.get("Result", ""),
            status_text=told.get("StatusText", ""),
            main_pid=int(told.get("MainPID", 0)),
            exit_status=int(told.get("ExecMainStatus", 0)),
        )

    def start(self, unit: str, *, timeout: float) -> None:
        """Start a unit and await its job; UnitFailed when it did not end well."""
        self._await_job("start", unit, timeout)

    def stop(self, unit: str, *, timeout: float) -> None:
        self._await_job("stop", unit, timeout)

    def reset_failed(self, unit: str) -> None:
        self._ssh.run_as_root("systemctl", "--no-ask-password", "reset-failed", "--", unit)

    def _await_job(self, verb: str, unit: str, timeout: float) -> None:
        try:
            self._ssh.run_as_root("systemctl", "--no-ask-password", verb, "--", unit, timeout=timeout + SLACK)
        except CommandFailed as error:
            self._explain(verb, unit, error)
        except TimedOut as error:
            raise TimedOut(error.message, hint=self._cure(unit)) from error

    def _explain(self, verb: str, unit: str, error: CommandFailed) -> NoReturn:
        """What the unit itself says of its end, or systemctl where it never began."""
        if "canceled" in error.reason:
            told = f"{unit} did not {verb}: somebody else has it stopped, started or restarted right now"
            raise JobReplaced(told, hint=self._cure(unit)) from error
        state = self.state(unit)
        failure = UnitFailed(f"{unit} did not {verb}: {error.reason}", hint=self._cure(unit))
        if state.result not in ("", "success"):
            try:
                check_job(unit, "failed", lambda: state, verb, cure=lambda unit, _state: self._cure(unit))
            except UnitFailed as told:
                failure = UnitFailed(told.message, hint=self._for_there(told.hint))
        raise failure from error

    def _for_there(self, hint: str | None) -> str:
        """What the hive's own cures are as typed here: those that are root's are for its machine."""
        there = f"ssh -t {self._ssh.target} "
        return "\n".join(there * one.startswith("sudo ") + one for one in (hint or "").splitlines())

    def _cure(self, unit: str) -> str:
        there = f"ssh -t {self._ssh.target} sudo"
        return f"{there} systemctl status {unit}\n{there} journalctl -n 20 -u {unit}"
