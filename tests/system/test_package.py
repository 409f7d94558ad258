"""The packages: what they bring, how tight the services are, and what a purge leaves."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

from testbed.machine import Machine
from testbed.trees import Trees

from tests.system.commands import HIVE, QUEEN, SOCKETS, active, add_hive, rbeectl

CHECKOUT = Path(__file__).resolve().parents[2]


def test_sockets_are_enabled_and_listen_and_services_do_neither(machine: Machine) -> None:
    assert active(machine, QUEEN, HIVE, *SOCKETS) == ["inactive", "inactive", "active", "active"]
    assert machine.run("systemctl", "is-enabled", *SOCKETS).stdout.split() == ["enabled", "enabled"]
    for name in (QUEEN, HIVE):
        assert machine.run("systemctl", "is-enabled", name, check=False).stdout.strip() == "static"
    modes = machine.run("stat", "-c", "%n %a %U %G", "/run/rbee/queen.sock", "/run/rbee/hive.sock").stdout
    assert modes.splitlines() == [
        "/run/rbee/queen.sock 660 root rbee",
        "/run/rbee/hive.sock 660 root queen-rbee",
    ]


EXPOSED = {
    QUEEN: (
        0.4,
        ["DeviceAllow", "PrivateUsers", "RestrictAddressFamilies_AF_UNIX", "RootDirectoryOrRootImage"],
    ),
    HIVE: (
        0.6,
        [
            "DeviceAllow",
            "MemoryDenyWriteExecute",
            "PrivateDevices",
            "PrivateUsers",
            "ProcSubset",
            "RestrictAddressFamilies_AF_UNIX",
            "RootDirectoryOrRootImage",
            "SupplementaryGroups",
        ],
    ),
}
"""What `systemd-analyze security` says of each service, and what it still counts: the unit files say why.
1.0 and 1.3 are what is promised."""


def test_the_services_are_exposed_by_at_most_0_4_and_0_6_and_the_units_say_for_what(machine: Machine) -> None:
    for service, (most, counted) in EXPOSED.items():
        told = machine.run("systemd-analyze", "security", "--no-pager", service).stdout
        found = re.search(r"Overall exposure level for \S+: ([\d.]+)", told)
        assert found, told
        assert float(found[1]) <= most
        checks = json.loads(machine.run("systemd-analyze", "security", "--json=short", service).stdout)
        assert sorted(check["json_field"] for check in checks if check["set"] is False) == counted
        comments = [line for line in (CHECKOUT / "units" / service).read_text().splitlines() if "#" in line]
        for name in counted:
            option = re.split("_|Or", name)[0]
            assert any(f"{option}=" in comment for comment in comments), (service, option)


def test_systemd_finds_nothing_to_say_of_the_units(machine: Machine) -> None:
    verified = machine.run(
        "systemd-analyze", "verify", "--man=no", QUEEN, HIVE, *SOCKETS, "rbee.target", check=False
    )
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    add_hive(machine)
    assert [e["MESSAGE"] for e in machine.journal("_PID=1") if "cycle" in str(e["MESSAGE"])] == []


def test_help_version_man_page_and_completion_are_there(machine: Machine) -> None:
    assert "add-hive" in rbeectl(machine, "--help").out
    assert rbeectl(machine, "--version").out.startswith("rbeectl ")
    machine.run("test", "-e", "/usr/share/bash-completion/completions/rbeectl")
    machine.run("test", "-e", "/usr/share/zsh/vendor-completions/_rbeectl")
    machine.run("test", "-e", "/usr/share/fish/vendor_completions.d/rbeectl.fish")
    machine.run("test", "-e", "/usr/share/man/man1/rbeectl.1.gz")


def test_lintian_finds_no_errors_and_no_warnings(debs: list[Path], trees: Trees) -> None:
    lintian = shutil.which("lintian")
    assert lintian, "tests/run installs lintian"
    checked = subprocess.run(
        [lintian, "--fail-on", "error,warning", "--allow-root", *sorted(debs[0].parent.glob("*.changes"))],
        capture_output=True,
        text=True,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
