"""User queen-rbee plants links in its folder, where an administrator's root restores and mends."""

from __future__ import annotations

from testbed.machine import Machine

from tests.system.commands import add_hive, rbeectl
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
