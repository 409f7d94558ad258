"""Queen and hive while they have no requests."""

from __future__ import annotations

import time

from testbed.machine import Machine

from tests.system.commands import HIVE, QUEEN, add_hive, main_pid

SPAN = 30.0
"""Seconds."""

MOST = 20
"""Waits in that span: three for each watchdog, and four for each of at most three heartbeats: two of the
hive, one of the queen, and one before the queen looks for silence. One more for each would be too many."""

WAITS = "cat /proc/$0/task/*/status /proc/$1/task/*/status | awk '/^voluntary_ctxt/ {n += $2} END {print n}'"


def waits(machine: Machine) -> int:
    """How often a thread of either has waited, by its voluntary context switches."""
    pids = (str(main_pid(machine, unit)) for unit in (QUEEN, HIVE))
    return int(machine.run("sh", "-c", WAITS, *pids).stdout)


def test_idle_queen_and_hive_wake_up_at_most_once_in_two_seconds(machine: Machine) -> None:
    add_hive(machine)
    time.sleep(5)  # what an add-hive leaves to do
    before = waits(machine)

    time.sleep(SPAN)  # what is counted is what happens by itself

    assert waits(machine) - before <= MOST
