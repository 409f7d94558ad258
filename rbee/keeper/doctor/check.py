"""What a check is, and what it returns: complaints, with the commands that cure them.

A check changes nothing and wakes nothing. A complaint's cures are command lines, to be typed
by a person or run by `rbeectl doctor --fix`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from rbee.keeper.doctor.patient import Patient
from rbee.scope import TARGET, Scope

Command = tuple[str, ...]


def restart(scope: Scope) -> Command:
    """Restarts services and sockets in one transaction (PartOf=): a socket cannot start if its service runs.

    What was awake is awake afterwards, what was asleep stays asleep.
    """
    return scope.command("systemctl", "restart", TARGET)


class Complaint(NamedTuple):
    """What is wrong, in one sentence. `hint` is for what no command can mend, or has details.

    A complaint that is not a fault is a note, and changes no exit status.
    """

    text: str
    cures: tuple[Command, ...] = ()
    hint: str | None = None
    is_fault: bool = True


def no_bus(scope: Scope) -> Complaint:
    """What a check that needs the bus yields if the bus does not answer; another check reports that fault."""
    return Complaint(f"not checked: the {scope.kind} bus does not answer", is_fault=False)


def _of_any(_patient: Patient) -> bool:
    return True


class Check(NamedTuple):
    """`well` is printed if `look` has no complaints; `is_of_use` says whether the check fits the machine."""

    name: str
    well: str
    look: Callable[[Patient], Iterator[Complaint]]
    is_of_use: Callable[[Patient], bool] = _of_any
