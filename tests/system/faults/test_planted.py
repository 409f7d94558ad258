"""User queen-rbee plants links in its folder, where an administrator's root restores and mends."""

from __future__ import annotations

from testbed.machine import Machine

from tests.system.commands import QUEEN, add_hive, put, rbeectl
from tests.system.planted import racing

STATE = "/var/lib/queen-rbee"


def test_a_queen_who_plants_links_has_root_write_or_chmod_nothing(machine: Machine) -> None:
    add_hive(machine)
    backup = rbeectl(machine, "catalog", "backup", "/home/ada/backup.db")
    assert backup.code == 0, backup
    assert rbeectl(machine, "shutdown").code == 0
    names = [f"catalog.db{suffix}" for suffix in ("-wal", "-shm", ".new", ".restoring")]
    with racing(machine, "queen-rbee", STATE, *names):
        for _ in range(8):
            rbeectl(machine, "catalog", "restore", "/home/ada/backup.db", user=None)
            rbeectl(machine, "doctor", "--fix", user=None, timeout=120)
    # A link that took the catalog's own name is told to the administrator, who takes it away.
    machine.run("sh", "-c", f"rm -f {STATE}/catalog.db*")
    restored = rbeectl(machine, "catalog", "restore", "/home/ada/backup.db", user=None)
    assert restored.code == 0, restored
    assert machine.run("stat", "-c", "%U:%G", f"{STATE}/catalog.db").stdout == "queen-rbee:queen-rbee\n"
    assert add_hive(machine).code == 0


def test_what_is_run_at_a_stop_has_the_queens_rights_alone(machine: Machine) -> None:
    program = "/usr/libexec/rbee/queen-rbee-stopped"
    shows = "id -un; id -Gn; sed -n 's/^\\(CapBnd\\|CapEff\\|NoNewPrivs\\):\\t*//p' /proc/self/status"
    put(machine, program, f"#!/bin/sh\n{{ {shows}; }} >$STATE_DIRECTORY/rights\n")
    machine.run("chmod", "755", program)
    machine.run("systemctl", "start", QUEEN)
    machine.run("systemctl", "stop", QUEEN)

    rights = machine.run("cat", f"{STATE}/rights").stdout.split("\n")
    assert rights == ["queen-rbee", "queen-rbee", "0" * 16, "0" * 16, "1", ""]
