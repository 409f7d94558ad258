"""Queen and hive, while nobody asks them for anything."""

from __future__ import annotations

import time

from testbed.machine import Machine

from tests.system.commands import HIVE, QUEEN, add_hive, main_pid

SPAN = 30.0

MOST = 20
"""In that span: three of each watchdog, and at most three beats, each of which wakes the hive twice and the
queen once, and once more she looks for silence. One more for each beat would be too many."""

WAITS = "cat /proc/$0/task/*/status /proc/$1/task/*/status | awk '/^voluntary_ctxt/ {n += $2} END {print n}'"


def waits(machine: Machine) -> int:
    """How often a thread of the two has waited for something."""
    pids = (str(main_pid(machine, unit)) for unit in (QUEEN, HIVE))
    return int(machine.run("sh", "-c", WAITS, *pids).stdout)


def test_idle_queen_and_hive_wake_up_at_most_once_in_two_seconds(machine: Machine) -> None:
    add_hive(machine)
    time.sleep(5)  # what an add-hive leaves to do
    before = waits(machine)

    time.sleep(SPAN)  # what is counted is what happens by itself

    assert waits(machine) - before <= MOST
