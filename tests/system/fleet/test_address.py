"""The queen's address for a machine that is added, which is tried from there before anything is changed."""

from __future__ import annotations

import pytest
from testbed.machine import Machine

from tests.system.commands import put, rbeectl, rows
from tests.system.fleet.fleet import Fleet, refused
from tests.system.fleet.ssh import give_ssh

ADDING = ("add-hive", "root@gpu1")


@pytest.fixture
def fleet(reached_fleet: Fleet) -> Fleet:
    return reached_fleet


def untouched(fleet: Fleet, gpu1: Machine) -> None:
    assert rows(fleet.queen) == []
    assert gpu1.run("ls", "-A", "/var/lib/rbee-hive", check=False).stdout == ""
    assert rbeectl(fleet.queen, "token", "list", "--json").json["tokens"] == []


def advised(fleet: Fleet, err: str) -> list[str]:
    """The command that was to help, as it is typed."""
    cures = [line.partition("try: ")[2] for line in err.splitlines() if "--queen" in line]
    assert cures == [f"rbeectl add-hive root@gpu1 --queen {fleet.queen.address}:8500"]
    return cures[0].split()[1:]


def test_behind_a_bastion_hers_is_found_and_not_the_bastion_s(fleet: Fleet) -> None:
    gpu1, bastion = fleet.hives["gpu1"], fleet.boot("bastion")
    give_ssh(fleet, bastion)
    fleet.queen.run("sh", "-c", "printf 'Host gpu1\\nProxyJump root@bastion\\n' >>~/.ssh/config", user="ada")
    told = rbeectl(fleet.queen, *ADDING, timeout=60)
    refused(told, 1, f"gpu1 does not reach the queen at {bastion.address}:8500, where ssh came from: ")
    assert "Connection refused" in told.err
    untouched(fleet, gpu1)
    cure = advised(fleet, told.err)
    # What listens on that port of the bastion's is not she.
    put(bastion, "/run/systemd/system/other.socket", "[Socket]\nListenStream=8500\nAccept=yes\n")
    put(bastion, "/run/systemd/system/other@.service", "[Service]\nExecStart=cat\nStandardInput=socket\n")
    bastion.run("systemctl", "start", "other.socket")
    told = rbeectl(fleet.queen, *ADDING, timeout=60)
    refused(told, 1, "another server answers there")
    assert advised(fleet, told.err) == cure
    assert rbeectl(fleet.queen, *cure, timeout=60).code == 0


def test_behind_a_command_that_knows_no_address_another_is_named(fleet: Fleet) -> None:
    # A sshd that reads from a pipe does not know where it was called from.
    inetd = "ProxyCommand ssh -o ProxyCommand=none root@gpu1 /usr/sbin/sshd -i"
    fleet.queen.run("sh", "-c", f"printf 'Host gpu1\\n{inetd}\\n' >>~/.ssh/config", user="ada")
    told = rbeectl(fleet.queen, *ADDING, timeout=60)
    refused(told, 1, "gpu1 does not reach the queen: ssh came from UNKNOWN, which is not an address")
    untouched(fleet, fleet.hives["gpu1"])
    assert rbeectl(fleet.queen, *advised(fleet, told.err), timeout=60).code == 0


def test_an_address_of_one_link_is_not_handed_over(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    for machine in (fleet.queen, gpu1):  # an address cannot be used until it is known to be unique
        tentative = "while ip -6 -o address show dev host0 tentative | grep -q .; do sleep 0.1; done"
        machine.run("sh", "-c", tentative, timeout=20)
    addresses = gpu1.run("ip", "-6", "-o", "address", "show", "dev", "host0", "scope", "link").stdout.split()
    link = addresses[addresses.index("inet6") + 1].partition("/")[0]
    fleet.queen.run(
        "sh", "-c", f"printf 'Host gpu1\\nHostname {link}%%%%host0\\n' >>~/.ssh/config", user="ada"
    )
    told = rbeectl(fleet.queen, *ADDING, timeout=60)
    refused(told, 1, "gpu1 does not reach the queen: ssh came from fe80::")
    untouched(fleet, gpu1)
    assert rbeectl(fleet.queen, *advised(fleet, told.err), timeout=60).code == 0


def test_an_address_where_she_does_not_listen_is_named_with_those_where_she_does(fleet: Fleet) -> None:
    queen = fleet.queen
    enable = ("tcp", "enable", "--listen")
    queen.run("ip", "address", "add", "10.255.0.1/32", "dev", "host0")
    fleet.hives["gpu1"].run("ip", "route", "add", "10.255.0.1/32", "via", queen.address)
    assert rbeectl(queen, *enable, "10.255.0.1:9000", user=None).code == 0
    told = rbeectl(queen, *ADDING, timeout=60)
    refused(
        told, 1, f"gpu1 does not reach the queen at {queen.address}:9000, where ssh came from: Connection"
    )
    assert "try: rbeectl add-hive root@gpu1 --queen 10.255.0.1:9000" in told.err
    untouched(fleet, fleet.hives["gpu1"])

    # Where she is behind a wall, all that was tried is named.
    assert rbeectl(queen, *enable, "127.0.0.1:9000", user=None).code == 0
    told = rbeectl(queen, *ADDING, timeout=60)
    refused(told, 1, "Connection refused")
    assert "; nor at 127.0.0.1:9000" in told.err
    assert "rbeectl add-hive root@gpu1 --queen ADDRESS:9000" in told.err
