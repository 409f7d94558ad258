"""The packages: what they bring, how tight the services are, and what a purge leaves."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

from testbed.machine import Machine
from testbed.trees import Trees

from tests.system.commands import FETCH, GATEWAY, HIVE, QUEEN, SOCKETS, WORKER, active, add_hive, rbeectl

CHECKOUT = Path(__file__).resolve().parents[2]

GATEWAY_SOCKETS = ("rbee-gateway.socket", "rbee-gateway-tcp.socket")


def test_sockets_are_enabled_and_listen_and_services_do_neither(machine: Machine) -> None:
    assert active(machine, QUEEN, HIVE, *SOCKETS) == ["inactive", "inactive", "active", "active"]
    assert active(machine, GATEWAY, *GATEWAY_SOCKETS) == ["inactive", "active", "inactive"]
    enabled = machine.run("systemctl", "is-enabled", *SOCKETS, *GATEWAY_SOCKETS).stdout.split()
    assert enabled == ["enabled"] * 4
    for name in (QUEEN, HIVE, GATEWAY, WORKER, FETCH):
        assert machine.run("systemctl", "is-enabled", name, check=False).stdout.strip() == "static"
    modes = machine.run("sh", "-c", "stat -c '%n %a %U %G' /run/rbee/*").stdout
    assert sorted(modes.splitlines(), reverse=True) == [
        "/run/rbee/queen.sock 660 root rbee",
        "/run/rbee/openai.sock 660 root rbee",
        "/run/rbee/logs.sock 660 root rbee",
        "/run/rbee/hive.sock 660 root queen-rbee",
    ]

    # The hive brings it along, and nobody else may use it.
    add_hive(machine)
    mode = machine.run("stat", "-c", "%a %U %G", "/run/rbee/hive-control.sock").stdout
    assert mode == "660 root rbee-hive\n"


LOGS = "queen-rbee-logs@test.service"

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
    GATEWAY: (
        0.4,
        [
            "DeviceAllow",
            "PrivateUsers",
            "RestrictAddressFamilies_AF_UNIX",
            "RootDirectoryOrRootImage",
            "SupplementaryGroups",
        ],
    ),
    WORKER: (
        1.3,
        [
            "DeviceAllow",
            "IPAddressDeny",
            "MemoryDenyWriteExecute",
            "NotifyAccess",
            "PrivateDevices",
            "PrivateUsers",
            "ProcSubset",
            "RestrictAddressFamilies_AF_INET_INET6",
            "RestrictAddressFamilies_AF_UNIX",
            "RootDirectoryOrRootImage",
            "SupplementaryGroups",
            "SystemCallFilter_resources",
            "UMask",
        ],
    ),
    LOGS: (
        1.2,
        [
            "DeviceAllow",
            "PrivateUsers",
            "ProcSubset",
            "ProtectControlGroups",
            "ProtectKernelTunables",
            "ProtectProc",
            "RestrictAddressFamilies_AF_UNIX",
            "RootDirectoryOrRootImage",
            "SupplementaryGroups",
        ],
    ),
    "rbee-estimate.service": (
        0.6,
        [
            "DeviceAllow",
            "MemoryDenyWriteExecute",
            "ProcSubset",
            "RestrictAddressFamilies_AF_UNIX",
            "RootDirectoryOrRootImage",
        ],
    ),
    FETCH: (
        1.1,
        [
            "DeviceAllow",
            "IPAddressDeny",
            "PrivateNetwork",
            "RestrictAddressFamilies_AF_INET_INET6",
            "RestrictAddressFamilies_AF_UNIX",
            "RootDirectoryOrRootImage",
        ],
    ),
}
"""What `systemd-analyze security` says of each service, and what it still counts: the unit files say why.
1.0 and 1.3 are what is promised of queen and hive, 1.0 of the gateway, and 1.3 of a worker."""

BY_TCP = 1.5
"""What is promised of the gateway that is open to other machines."""


def test_no_service_is_more_exposed_than_its_unit_says_for_what(machine: Machine) -> None:
    for service, (most, counted) in EXPOSED.items():
        assert exposure(machine, service) <= most, service
        checks = json.loads(machine.run("systemd-analyze", "security", "--json=short", service).stdout)
        assert sorted(check["json_field"] for check in checks if check["set"] is False) == counted
        comments = [
            line for line in (CHECKOUT / "units" / template(service)).read_text().splitlines() if "#" in line
        ]
        for name in counted:
            option = re.split("_|Or", name)[0]
            assert any(f"{option}=" in comment for comment in comments), (service, option)


def test_a_gateway_for_other_machines_is_exposed_by_no_more_than_that_takes(machine: Machine) -> None:
    command = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    files = ("-keyout", "/root/tls.key", "-out", "/root/tls.crt", "-subj", "/CN=gateway")
    machine.run(*command, *files)
    tls = ("--tls-cert", "/root/tls.crt", "--tls-key", "/root/tls.key")
    opened = rbeectl(machine, "gateway", "enable", "--listen", "0.0.0.0:8510", *tls, user=None)
    assert opened.code == 0, opened
    assert active(machine, *GATEWAY_SOCKETS) == ["active", "active"]
    assert exposure(machine, GATEWAY) <= BY_TCP


def exposure(machine: Machine, service: str) -> float:
    told = machine.run("systemd-analyze", "security", "--no-pager", service).stdout
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", told)
    assert found, told
    return float(found[1])


def template(service: str) -> str:
    """The unit's file."""
    return re.sub(r"@.+\.", "@.", service)


def test_systemd_finds_nothing_to_say_of_the_units(machine: Machine) -> None:
    others = ("rbee-orphans.service", "rbee-orphans.timer", "rbee-hive-control.socket", *GATEWAY_SOCKETS)
    services = (QUEEN, HIVE, GATEWAY, WORKER, FETCH, "rbee-hive-control@x.service", "rbee-estimate.service")
    verified = machine.run(
        "systemd-analyze", "verify", "--man=no", *services, *SOCKETS, *others, "rbee.target", check=False
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
