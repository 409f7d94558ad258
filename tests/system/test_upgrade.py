"""The packages' life: upgrade, downgrade, removal, a catalog left over, purge; the services' meanwhile."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from testbed.debian import add_person, install
from testbed.machine import Machine

from tests.system.commands import (
    CATALOG,
    GATEWAY,
    HIVE,
    QUEEN,
    SOCKETS,
    active,
    add_hive,
    await_state,
    curl,
    processes_of,
    put,
    rbeectl,
    rows,
    unit,
)

CHECKOUT = Path(__file__).resolve().parents[2]
PACKAGES = ("rbee", "rbeectl", "rbee-queen", "rbee-hive", "rbee-gateway", "python3-rbee")

BEFORE, NOW = "0.4.0", "0.5.0"

GATEWAY_SOCKETS = ("rbee-gateway.socket", "rbee-gateway-tcp.socket")

RESUME = "queen-rbee-resume.service"

STARTED = "MESSAGE_ID=39f53479d3a045ac8e11786248231fbf"
"""How systemd says that a unit was started: SD_MESSAGE_UNIT_STARTED of sd-messages.h."""

EDITED = "[Queen]\nHeartbeatIntervalSec=7s\n"

CHANGING = (
    *("/etc/ld.so.cache", "/proc", "/dev", "/sys", "/run/systemd", "/run/udev", "/tmp", "/var/tmp", "/home"),
    *("/var/cache", "/var/lib/apt", "/var/lib/dpkg", "/var/log", "/root/debs"),
)
"""What any installation of any package, or the machine itself, writes meanwhile."""


@pytest.fixture
def edited_debs(debs: list[Path], tmp_path: Path) -> list[Path]:
    """The packages, with an rbee.conf that certainly is not that of the release before."""
    (shared,) = [deb for deb in debs if deb.name.startswith("python3-rbee_")]
    subprocess.run(["dpkg-deb", "--raw-extract", shared, tmp_path / "tree"], check=True)
    with (tmp_path / "tree/etc/rbee/rbee.conf").open("a") as conf:
        conf.write("# A line that the packager added.\n")
    subprocess.run(["dpkg-deb", "--root-owner-group", "--build", tmp_path / "tree", tmp_path], check=True)
    return sorted({*debs, *tmp_path.glob("*.deb")} - {shared})


def test_an_upgrade_restarts_queen_and_hive_once_and_keeps_what_people_wrote(
    previous_machine: Machine, edited_debs: list[Path], previous_debs: list[Path]
) -> None:
    machine = previous_machine
    machine.run("tee", "-a", "/etc/rbee/rbee.conf", input=EDITED)
    written = {
        "/etc/rbee/rbee.conf": machine.run("cat", "/etc/rbee/rbee.conf").stdout,
        "/etc/rbee/rbee.conf.d/50-local.conf": "[Queen]\nHeartbeatGraceSec=6s\n",
        f"/etc/systemd/system/{HIVE}.d/50-local.conf": "[Service]\nNice=3\n",
    }
    for path, text in written.items():
        put(machine, path, text)
    machine.run("systemctl", "daemon-reload")
    add_hive(machine)
    before = lasting(machine)
    assert version(machine) == BEFORE

    # Where the administrator's file and the packager's both changed dpkg asks; kept, says apt's caller.
    install(machine, edited_debs, "--option=Dpkg::Options::=--force-confold")
    assert await_state(machine, "online")["wanted"]
    assert version(machine) == NOW
    assert starts(machine, QUEEN, HIVE) == [2, 2], "once by add-hive, once by the upgrade"
    assert lasting(machine) == before
    for path, text in written.items():
        assert machine.run("cat", path).stdout == text
    assert "packager added" in machine.run("cat", "/etc/rbee/rbee.conf.dpkg-dist").stdout
    assert unit(machine, HIVE, "Nice")["Nice"] == "3"
    assert machine.journal("RBEE_EVENT=queen-away") == [], "no heartbeat was lost"
    machine.run("test", "-e", "/var/lib/queen-rbee/wanted")  # a reboot brings it back, too
    is_healthy(machine)

    # Back to the release before, which has the same schema.
    install(machine, previous_debs, "--allow-downgrades", "--option=Dpkg::Options::=--force-confold")
    assert await_state(machine, "online")["wanted"]
    assert version(machine) == BEFORE
    assert "is Online" in add_hive(machine).out
    assert lasting(machine) == before
    assert machine.run("cat", "/etc/rbee/rbee.conf").stdout == written["/etc/rbee/rbee.conf"]
    is_healthy(machine)

    # Nor does the newer release leave behind what the older one would not know to purge.
    apt(machine, "purge", *PACKAGES)
    assert named_rbee(machine) == [f"/etc/systemd/system/{HIVE}.d"], "the administrator's own"
    is_healthy(machine)


def test_an_upgrade_wakes_nobody_who_sleeps(previous_machine: Machine, debs: list[Path]) -> None:
    machine = previous_machine
    before = [unit(machine, name, "InvocationID")["InvocationID"] for name in SOCKETS]
    resumed = starts(machine, RESUME)  # at boot, where its condition was not met
    install(machine, debs)
    assert active(machine, QUEEN, HIVE, *SOCKETS) == ["inactive", "inactive", "active", "active"]
    assert active(machine, GATEWAY, *GATEWAY_SOCKETS) == ["inactive", "active", "inactive"]
    assert starts(machine, QUEEN, HIVE) == [0, 0]
    assert starts(machine, RESUME) == resumed
    assert machine.run("systemctl", "is-enabled", RESUME).stdout == "enabled\n"
    after = [unit(machine, name, "InvocationID")["InvocationID"] for name in SOCKETS]
    assert after == before, "they listened all the time"
    add_hive(machine)
    assert version(machine) == NOW
    is_healthy(machine)


def test_an_upgrade_leaves_rbee_off_where_somebody_turned_it_off(
    previous_machine: Machine, debs: list[Path]
) -> None:
    machine = previous_machine
    add_hive(machine)
    assert rbeectl(machine, "shutdown").code == 0
    before = lasting(machine)
    install(machine, debs)
    assert active(machine, QUEEN, HIVE, *SOCKETS, GATEWAY, *GATEWAY_SOCKETS) == ["inactive"] * 7
    assert starts(machine, QUEEN, HIVE) == [1, 1]
    assert rbeectl(machine, "status").code == 3
    add_hive(machine)
    assert version(machine) == NOW
    assert lasting(machine) == before
    # What turns rbee on again turns on what is new in it, too.
    assert active(machine, *GATEWAY_SOCKETS) == ["active", "inactive"]
    is_healthy(machine)


def test_an_upgrade_does_not_start_a_hive_that_an_administrator_stopped(
    previous_machine: Machine, debs: list[Path]
) -> None:
    machine = previous_machine
    add_hive(machine)
    machine.run("systemctl", "stop", HIVE)
    await_state(machine, "offline")
    before = lasting(machine)
    install(machine, debs)
    assert await_state(machine, "offline")["reason"] == "stopped by an administrator"
    assert version(machine) == NOW
    assert active(machine, QUEEN, HIVE) == ["active", "inactive"]
    assert starts(machine, QUEEN, HIVE) == [2, 1]
    assert lasting(machine) == before
    assert before["wanted"] == 0
    is_healthy(machine)
    add_hive(machine)


def test_a_removal_keeps_the_catalog_and_a_purge_leaves_only_the_system_users(
    bare_machine: Machine, debs: list[Path]
) -> None:
    machine = bare_machine
    add_person(machine, "ada")
    before = everything(machine)
    install(machine, debs)
    machine.run("adduser", "ada", "rbee")
    add_hive(machine)
    first = lasting(machine)
    machine.run("tee", "-a", "/etc/rbee/rbee.conf", input=EDITED)

    apt(machine, "remove", *PACKAGES)
    assert is_gone(machine)
    # That the hive was stopped is what the row says, too: nothing wakes it but a person.
    assert lasting(machine) == first | {"wanted": 0}
    assert machine.run("cat", "/etc/rbee/rbee.conf").stdout.endswith(EDITED)

    install(machine, debs)
    assert active(machine, QUEEN, HIVE, *SOCKETS) == ["inactive", "inactive", "active", "active"]
    assert machine.run("cat", "/etc/rbee/rbee.conf").stdout.endswith(EDITED)
    machine.run("systemctl", "start", QUEEN)
    (shown,) = rbeectl(machine, "list-hives", "--json").json["hives"]
    assert (shown["id"], shown["created_at_ms"]) == ("localhost", first["created_at_ms"])
    known = {name: value for name, value in shown["devices"]["cpu"].items() if value is not None}
    assert json.loads(first["devices"])["cpu"] == known
    add_hive(machine)
    assert lasting(machine) == first

    apt(machine, "purge", *PACKAGES)
    assert is_gone(machine)
    assert machine.run("systemctl", "list-units", "--all", "--no-legend", "*rbee*").stdout == ""
    users = ("queen-rbee", "rbee-hive", "rbee-gateway", "rbee-fetch")
    assert machine.run("getent", "passwd", *users).stdout.count("\n") == 4
    assert everything(machine) == before


def test_each_program_comes_and_goes_without_the_others(bare_machine: Machine, debs: list[Path]) -> None:
    machine = bare_machine
    add_person(machine, "ada")
    of_hive = [deb for deb in debs if deb.name.startswith(("python3-rbee_", "rbee-hive_"))]
    others = [deb for deb in debs if deb.name.startswith(("rbee-queen_", "rbeectl_"))]

    # A hive alone serves root, and nobody else: there is no queen to share its socket with.
    install(machine, of_hive)
    assert group_of_hive_socket(machine) == "root"
    assert devices_of_hive(machine)["cpu"]["threads"] > 0
    assert active(machine, HIVE) == ["active"]
    is_healthy(machine)

    # A queen comes: the socket is hers, too.
    install(machine, others)
    machine.run("adduser", "ada", "rbee")
    assert group_of_hive_socket(machine) == "queen-rbee"
    add_hive(machine)
    is_healthy(machine)

    # The hive goes: the queen lives on, and says what became of it.
    apt(machine, "remove", "rbee-hive")
    assert active(machine, QUEEN, *SOCKETS) == ["active", "active", "inactive"]
    assert await_state(machine, "offline")["reason"] == "stopped by an administrator"
    is_healthy(machine)
    refused = rbeectl(machine, "add-hive", "localhost")
    assert refused.code == 1, refused
    assert "rbee-hive.service" in refused.err

    # And comes back.
    install(machine, [deb for deb in debs if deb.name.startswith("rbee-hive_")])
    first = lasting(machine)
    add_hive(machine)
    assert lasting(machine)["created_at_ms"] == first["created_at_ms"]

    # The queen goes: her hive with her, and its socket is root's again.
    apt(machine, "remove", "rbee-queen")
    assert active(machine, QUEEN, HIVE, *SOCKETS) == ["inactive", "inactive", "inactive", "active"]
    assert group_of_hive_socket(machine) == "root"
    assert devices_of_hive(machine)["cpu"]["threads"] > 0
    machine.run("test", "-s", CATALOG)


def test_autopkgtest_runs_the_happy_flow(machine: Machine) -> None:
    machine.copy_in(CHECKOUT / "debian", "/root/rbee/debian")
    # As the build leaves the tree, so that autopkgtest does not ask for what a build needs.
    put(machine, "/root/rbee/debian/files", "")
    # The machine is the container that the test asks for; within it the null server has no other.
    command = ["autopkgtest", "--no-built-binaries", "--ignore-restrictions=isolation-container"]
    done = machine.run(*command, "/root/rbee/", "--", "null", timeout=120)
    assert re.search(r"^add-hive +PASS$", done.stdout, re.MULTILINE), done.stdout + done.stderr
    assert "localhost online" in done.stdout


def test_a_removed_package_leaves_no_unit_that_failed(machine: Machine) -> None:
    machine.run("mkdir", "-p", "/var/lib/queen-rbee")
    machine.run("sh", "-c", f"echo 'this is no catalog, and long enough to look at' > {CATALOG}")
    assert rbeectl(machine, "add-hive", "localhost").code == 78
    assert active(machine, QUEEN) == ["failed"]
    apt(machine, "remove", *PACKAGES)
    assert machine.run("systemctl", "--failed", "--no-legend").stdout == ""


# -- what is asked of the machine ----------------------------------------------------------------------


def apt(machine: Machine, verb: str, *packages: str) -> None:
    machine.run("apt-get", verb, "--yes", *packages, env={"DEBIAN_FRONTEND": "noninteractive"}, timeout=120)


def version(machine: Machine) -> str:
    """Of the code that runs, as it tells."""
    return str(curl(machine, "/health")[1]["version"])


def starts(machine: Machine, *names: str) -> list[int]:
    """How often each of the units was started since boot."""
    return [len(machine.journal(STARTED, f"UNIT={name}")) for name in names]


def lasting(machine: Machine) -> dict[str, Any]:
    """The one row of the catalog, without what each restart writes, and what 0.4.0 has not of a CPU."""
    (row,) = rows(machine)
    devices = json.loads(row["devices"])
    devices["cpu"] = {name: value for name, value in devices["cpu"].items() if value is not None}
    row["devices"] = json.dumps(devices)
    return {name: value for name, value in row.items() if name not in ("updated_at_ms", "status")}


def is_healthy(machine: Machine) -> None:
    """dpkg and systemd have nothing to complain about, and nothing said that it went wrong."""
    assert machine.run("dpkg", "--audit").stdout == ""
    assert machine.run("systemctl", "--failed", "--no-legend").stdout == ""
    machine.run("journalctl", "--sync")
    assert machine.run("journalctl", "--boot", "--quiet", "--priority=err", "--no-pager").stdout == ""


def is_gone(machine: Machine) -> bool:
    """After a removal: no unit that does anything, no process, no socket."""
    is_healthy(machine)
    units = (QUEEN, HIVE, *SOCKETS, GATEWAY, *GATEWAY_SOCKETS, "rbee-hive-control.socket")
    assert set(active(machine, *units, "rbee.target", "rbee.slice")) == {"inactive"}
    assert processes_of(machine, "queen-rbee", "rbee-hive", "rbee-gateway", "rbee-fetch") == []
    for directory in ("/run/rbee", "/run/queen-rbee"):
        assert machine.run("test", "!", "-e", directory, check=False).returncode == 0
    return True


def named_rbee(machine: Machine) -> list[str]:
    pruned = [
        word for path in ("/proc", "/var/log/journal", "/home") for word in ("-path", path, "-prune", "-o")
    ]
    found = machine.run("find", "/", "-xdev", *pruned, "-name", "*rbee*", "-print", check=False).stdout
    return found.split()


def everything(machine: Machine) -> set[str]:
    """Each path of the machine with its type, mode, owner and target, as piuparts compares them."""
    pruned = [word for path in CHANGING for word in ("-path", path, "-prune", "-o")]
    told = machine.run("find", "/", "-xdev", *pruned, "-printf", "%p %y %m %U:%G %l\\n", check=False).stdout
    return set(told.splitlines())


def group_of_hive_socket(machine: Machine) -> str:
    return machine.run("stat", "-c", "%G", "/run/rbee/hive.sock").stdout.strip()


def devices_of_hive(machine: Machine) -> Any:
    """As root asks the hive itself."""
    asked = ["curl", "--silent", "--fail", "--max-time", "20", "--unix-socket", "/run/rbee/hive.sock"]
    return json.loads(machine.run(*asked, "http://localhost/v1/devices").stdout)
