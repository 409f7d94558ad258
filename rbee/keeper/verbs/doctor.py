"""rbeectl doctor: runs the checks, and prints the diagnosis."""

from __future__ import annotations

import sys
from functools import partial

import click

from rbee.errors import RbeeError
from rbee.keeper.options import common, in_session
from rbee.keeper.session import Session
from rbee.scope import Scope
from rbee.systemd.bus import Bus

ASK_TIMEOUT = 10.0
"""Seconds that systemd and polkit have to answer: a busy machine is not a fault, and polkit gives a rule that
hangs 15 s, in which it is found."""


@click.command(short_help="Find what keeps rbee from working here, and mend it.")
@click.option("--fix", is_flag=True, help="Run the commands that it shows, as root.")
@common
@in_session
def doctor(session: Session, fix: bool) -> None:
    """Find what keeps rbee from working on this machine, and show the commands that mend it.

    Without --fix it changes nothing, and it never wakes the queen. Exits 1 if a problem is left.
    """
    from rbee.keeper.doctor.doctor import Doctor, verdict_json  # late, as no other verb needs it

    scope = session.scope
    stream = None if session.as_json or session.is_quiet else sys.stdout
    at_work = Doctor(partial(Bus, scope, timeout=ASK_TIMEOUT), stream, scope=scope)
    verdicts = at_work.mend() if fix else at_work.look()
    faults = [fault for verdict in verdicts for fault in verdict.faults]
    if session.as_json:
        checks = [verdict_json(verdict) for verdict in verdicts]
        session.tell_json(
            {"ok": not faults, "checks": checks, "ran": [list(command) for command in at_work.ran]}
        )
    else:
        curable = sum(bool(fault.cures) for fault in faults)
        session.say(diagnosis(len(faults), curable, scope, has_mended=bool(at_work.ran)))
    if faults:
        raise SystemExit(RbeeError.exit_code)


def diagnosis(faults: int, curable: int, scope: Scope, *, has_mended: bool) -> str:
    """The last line: how many problems are left, and how to mend those that have commands."""
    if not faults:
        return "All is well now." if has_mended else "All is well."
    left = f"{faults} problem{'s' if faults > 1 else ''}{' left' if has_mended else ''}."
    mend = scope.rbeectl("doctor --fix", as_root=True)
    return left + (f" Run the commands shown, or: {mend}" if curable else "")
