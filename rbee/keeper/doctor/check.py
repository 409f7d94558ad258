"""What a check is, and what it finds: complaints, and the commands that are their cure.

Looking changes nothing and wakes nobody. A complaint's cures are command lines, to be typed
by a person or run by `rbeectl doctor --fix`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from rbee.keeper.doctor.patient import Patient
from rbee.scope import TARGET

Command = tuple[str, ...]

RESTART = ("systemctl", "restart", TARGET)
"""Services and sockets in one transaction (PartOf=); by itself a socket cannot start while its service runs.

Who was awake is awake again afterwards, who was asleep stays asleep.
"""


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong, in a sentence. `hint` is for what no command of ours can mend, or tells more.

    A complaint that is no fault is worth knowing, and changes no exit status.
    """

    text: str
    cures: tuple[Command, ...] = ()
    hint: str | None = None
    is_fault: bool = True


NO_BUS = Complaint("not looked at: the system bus does not answer", is_fault=False)


def _of_any(_patient: Patient) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Check:
    """`well` is what is true where `look` has no complaints; `is_of_use` says whether a machine has that."""

    name: str
    well: str
    look: Callable[[Patient], Iterator[Complaint]]
    is_of_use: Callable[[Patient], bool] = _of_any
