"""list-hives with many hives in the catalog, all offline with known devices, and the queen awake."""

from __future__ import annotations

import time

from testbed.machine import Machine

from tests.bench.lines import Goal, Results
from tests.bench.subject import Release, Subject
from tests.bench.timed import Command, measure_floor
from tests.bench.usage import QUEEN

LISTS = tuple(
    (size, Command(f"list-hives with {size} hives", "exec rbeectl list-hives", Goal(at_most=most)))
    for size, most in ((1000, 150), (2000, 250))
)

SETTLE = 3.0
"""Seconds after the queen's start until the machine is idle."""

FILL = """
import sqlite3, sys
catalog = sqlite3.connect("/var/lib/queen-rbee/catalog.db")
with catalog:
    catalog.executemany(
        "INSERT OR IGNORE INTO hives "
        "(id, host, port, status, created_at_ms, updated_at_ms, wanted, credential, machine, devices) "
        "SELECT ?1, ?1, 8600, 'offline', 1, 1, 1, ?2, ?2, devices FROM hives WHERE id = 'localhost'",
        [(f"hive{n}", f"{n:016x}") for n in range(int(sys.argv[1]))],
    )
catalog.close()
"""


class Listing(Subject):
    """The time of list-hives; the floor is an empty Python."""

    name = "listing"
    lines = tuple(line for _, command in LISTS for line in command.lines)

    def measure(self, release: Release, results: Results) -> None:
        """Fill the catalog while the queen sleeps, wake it, and list."""
        with Machine(release.queen()) as machine:
            machine.run("rbeectl", "add-hive", "localhost", user="ada")
            if release.is_now:
                measure_floor(machine, results, (command for _, command in LISTS))
            for size, command in LISTS:
                machine.run("systemctl", "stop", QUEEN)
                machine.run("python3", "-c", FILL, str(size))
                machine.run("systemctl", "start", QUEEN)
                time.sleep(SETTLE)
                command.measure(machine, results, release.column)
