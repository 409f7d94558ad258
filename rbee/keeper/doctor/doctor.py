"""rbeectl doctor: runs every check, prints the complaints, and mends if asked.

--fix runs the commands that are shown, then every check again; the last result counts.
"""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TextIO

from rbee.errors import NotPermitted, RbeeError
from rbee.keeper.doctor.bus import complain_of_bus
from rbee.keeper.doctor.check import Check, Command, Complaint
from rbee.keeper.doctor.checks import CHECKS
from rbee.keeper.doctor.patient import Patient
from rbee.scope import HIVE_SOCKET_UNIT, HIVE_UNIT, QUEEN_SOCKET_UNIT, QUEEN_UNIT, SYSTEM, Scope
from rbee.systemd.bus import Bus
from rbee.systemd.connection import SYSTEMD
from rbee.text import printable, shown_span

if TYPE_CHECKING:
    import subprocess

ROUNDS = 4
"""Rounds of --fix at most: a second one finds, for instance, what a dead bus had hidden."""

CURE_TIMEOUT = 300.0
"""Seconds for one command of a cure; apt-get is the slowest of them."""

SETTLE_TIMEOUT = 35.0
"""Seconds for the units' jobs to end after the cures; TimeoutStartSec= is 30 s."""


class Verdict(NamedTuple):
    """The result of one check; `well` is printed if there are no complaints."""

    check: str
    well: str
    complaints: tuple[Complaint, ...]

    @property
    def faults(self) -> list[Complaint]:
        """The complaints that are not mere notes."""
        return [complaint for complaint in self.complaints if complaint.is_fault]


class Doctor:
    """Runs the checks, and mends if asked. Prints each line to `stream`; nothing if that is None."""

    def __init__(
        self,
        open_bus: Callable[[], Bus],
        stream: TextIO | None,
        *,
        scope: Scope = SYSTEM,
        root: Path = Path("/"),
        checks: Sequence[Check] = CHECKS,
    ) -> None:
        self._open_bus = open_bus
        self._stream = stream
        self._scope = scope
        self._root = root
        self._checks = checks
        self._is_root = scope.is_owner()
        self._sudo_user = os.environ.get("SUDO_USER") or None
        self.ran: list[Command] = []

    def look(self) -> list[Verdict]:
        """Run every check once, and print each result as it comes."""
        verdicts = []
        with ExitStack() as stack:
            bus, trouble = None, []
            try:
                bus = stack.enter_context(self._open_bus())
                bus.ping(SYSTEMD)
            except RbeeError as error:
                bus, trouble = None, [complain_of_bus(error, self._root, self._scope)]
            verdicts.append(Verdict("bus", f"the {self._scope.kind} bus answers", tuple(trouble)))
            self._print(verdicts[-1])
            patient = Patient(bus, self._root, self._is_root, self._sudo_user, self._scope)
            for check in self._checks:
                if check.is_of_use(patient):
                    verdicts.append(Verdict(check.name, check.well, tuple(_asked(check, patient))))
                    self._print(verdicts[-1])
        return verdicts

    def mend(self) -> list[Verdict]:
        """Check and mend until no command is left to run, in at most ROUNDS rounds; return the last verdicts.

        Raises NotPermitted for anybody but root. A command that fails is printed, and raises nothing.
        """
        if not self._is_root:
            hint = self._scope.rbeectl("doctor --fix", as_root=True)
            raise NotPermitted("only root may mend a machine", hint=hint)
        verdicts = self.look()
        for _ in range(ROUNDS):
            cures = cures_of(verdicts)
            if not cures:
                break
            for cure in cures:
                self._run(cure)
            self._settle()
            self._say("Looking again:")
            before, verdicts = verdicts, self.look()
            if verdicts == before:
                break
        return verdicts

    def typed(self, command: Command) -> str:
        """The command as this user types it: without sudo in root's own shell, where it may be missing."""
        is_roots_shell = self._is_root and self._sudo_user is None
        return shlex.join(command) if is_roots_shell else self._scope.as_root(shlex.join(command))

    def _print(self, verdict: Verdict) -> None:
        if not verdict.complaints:
            self._say(f"ok       {verdict.well}")
        for complaint in verdict.complaints:
            self._say(f"{'problem' if complaint.is_fault else 'note':<8} {verdict.check}: {complaint.text}")
            for cure in complaint.cures:
                self._say(f"  try: {self.typed(cure)}")
            for line in (complaint.hint or "").splitlines():
                self._say(f"  hint: {line}")

    def _run(self, command: Command) -> None:
        import subprocess  # only where something is mended

        self._say(f"run      {shlex.join(command)}")
        self.ran.append(command)
        try:
            with subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                text=True, errors="replace",
                env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "SYSTEMD_PAGER": ""},
            ) as running:  # fmt: skip
                output = _output_of(running)
        except subprocess.TimeoutExpired:
            self._say(f"  failed: it was not done after {shown_span(CURE_TIMEOUT)}")
        except OSError as error:
            self._say(f"  failed: {error.strerror}")
        else:
            if running.returncode:
                self._say(f"  failed: exit status {running.returncode}")
                for line in output.splitlines()[-5:]:
                    self._say(f"    {line}")

    def _settle(self) -> None:
        """Wait for the jobs that the cures began: a restart of the target starts services after its end."""
        try:
            with self._open_bus() as bus:
                bus.await_idle(
                    (QUEEN_UNIT, QUEEN_SOCKET_UNIT, HIVE_UNIT, HIVE_SOCKET_UNIT), timeout=SETTLE_TIMEOUT
                )
        except RbeeError:
            pass  # the next round reports what is wrong

    def _say(self, line: str) -> None:
        if self._stream is not None:
            print(printable(line), file=self._stream, flush=True)


def _output_of(running: subprocess.Popen[str]) -> str:
    """What a command prints until it ends; after CURE_TIMEOUT it is killed, which raises TimeoutExpired.

    Ctrl-C does not kill it: it gets the signal as well, and may have to clean up, as apt-get does. It has the
    rest of CURE_TIMEOUT for that.
    """
    import subprocess

    ends = time.monotonic() + CURE_TIMEOUT
    try:
        return running.communicate(timeout=CURE_TIMEOUT)[0]
    except KeyboardInterrupt:
        with suppress(subprocess.TimeoutExpired):
            running.communicate(timeout=max(0, ends - time.monotonic()))
        raise
    finally:
        running.kill()  # which does nothing to one that has ended


def _asked(check: Check, patient: Patient) -> Iterator[Complaint]:
    """A check's complaints; an error of the check is one of them."""
    try:
        yield from check.look(patient)
    except RbeeError as error:
        yield Complaint(f"could not be checked: {error.message}", hint=error.hint)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        yield Complaint(f"could not be checked: {name}{error.strerror}")


def cures_of(verdicts: Sequence[Verdict]) -> list[Command]:
    """Every command once, in order; one that several complaints have is at its last place."""
    cures = [cure for verdict in verdicts for complaint in verdict.faults for cure in complaint.cures]
    return list(reversed(dict.fromkeys(reversed(cures))))


def verdict_json(verdict: Verdict) -> dict[str, object]:
    """A verdict as --json prints it."""
    return {
        "check": verdict.check,
        "ok": not verdict.faults,
        "complaints": [
            {
                "fault": complaint.is_fault,
                "text": complaint.text,
                "cures": [list(cure) for cure in complaint.cures],
                "hint": complaint.hint,
            }
            for complaint in verdict.complaints
        ],
    }
