"""Adding a machine by ssh from the queen's machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.system.commands import HIVE, rbeectl, rows
from tests.system.fleet.conftest import MakeFleet
from tests.system.fleet.fleet import MEMBERSHIP, SUITES, Fleet, refused
from tests.system.fleet.ssh import give_ssh


@pytest.fixture(params=SUITES)
def fleet(request: pytest.FixtureRequest, make_fleet: MakeFleet) -> Fleet:
    """A queen on either Debian, and nobody yet."""
    return make_fleet(queen=request.param)


def test_a_machine_is_added_as_this_one_is(fleet: Fleet) -> None:
    gpu1 = fleet.boot("gpu1")
    give_ssh(fleet, gpu1)
    added = rbeectl(fleet.queen, "add-hive", "gpu1", "--user", "root", timeout=60)

    assert added.code == 0, added
    story = [re.sub(r"address, [0-9.:]+,", "address, …,", line) for line in added.lines]
    assert story[:4] == [
        "(bee keeper) queen is awake and healthy.",
        "(bee keeper) looking at gpu1 by ssh",
        "(bee keeper) handing gpu1 the queen's address, …, and a token for one use",
        "(bee keeper) starting rbee-hive.service on gpu1",
    ]
    assert "(queen bee)  Adding gpu1 to hive catalog." in story
    assert "Hive gpu1 is Online" in story
    assert fleet.views()["gpu1"]["address"] == gpu1.address
    # Whom it was for is what it was used for, and nothing of it is left there.
    tokens = rbeectl(fleet.queen, "token", "list", "--json").json["tokens"]
    assert [(token["hive"], token["uses_left"]) for token in tokens] == [("gpu1", 0)]
    assert gpu1.run("ls", "-A", "/var/lib/rbee-hive").stdout == "membership\n"
    assert fleet.queen.run("sh", "-c", "ls -d /tmp/rbeectl-*", user="ada", check=False).stdout == ""

    # Again it is no more than a look; stopped over there, it is started.
    assert "awake already" in rbeectl(fleet.queen, "add-hive", "gpu1", "--user", "root").out
    gpu1.run("systemctl", "stop", HIVE)
    fleet.await_state("gpu1", "offline")
    inode = gpu1.run("stat", "-c", "%i", MEMBERSHIP).stdout
    again = rbeectl(fleet.queen, "add-hive", "gpu1", "--user", "root", timeout=60)
    assert again.code == 0, again
    assert "handing" not in again.out
    assert gpu1.run("stat", "-c", "%i", MEMBERSHIP).stdout == inode


def test_a_user_with_sudo_will_do_and_one_without_is_told(fleet: Fleet) -> None:
    gpu1 = fleet.boot("gpu1")
    for user in ("grace", "mallory"):
        gpu1.run("adduser", "--quiet", "--disabled-password", "--gecos", "", user)
        give_ssh(fleet, gpu1, user)
    gpu1.run("sh", "-c", "echo 'grace ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/grace")

    told = rbeectl(fleet.queen, "add-hive", "gpu1", "--user", "mallory", timeout=60)
    assert told.code != 0
    assert rows(fleet.queen) == []
    assert rbeectl(fleet.queen, "add-hive", "gpu1", "--user", "grace", timeout=60).code == 0
    fleet.await_state("gpu1", "online")


def test_where_the_package_is_missing_the_line_is_told_or_it_is_installed(
    fleet: Fleet, debs: list[Path]
) -> None:
    gpu1 = fleet.boot("gpu1")
    give_ssh(fleet, gpu1)
    gpu1.run("dpkg", "--purge", "rbee-hive", "rbeectl", "python3-rbee", timeout=60)
    missing = rbeectl(fleet.queen, "add-hive", "gpu1", "--user", "root", timeout=60)
    refused(missing, 1, "rbee-hive is not installed on gpu1")
    assert "sudo apt install ./python3-rbee_*.deb ./rbee-hive_*.deb" in missing.err
    assert rows(fleet.queen) == []

    fleet.queen.run("mkdir", "/home/ada/debs")
    for deb in debs:
        fleet.queen.copy_in(deb, f"/home/ada/debs/{deb.name}")
    adding = ("add-hive", "root@gpu1", "--install")
    refused(rbeectl(fleet.queen, *adding, "/home/ada/none", timeout=60), 2, "cannot be read")
    done = rbeectl(fleet.queen, *adding, "/home/ada/debs", timeout=120)
    assert done.code == 0, done
    fleet.await_state("gpu1", "online")
    assert rbeectl(gpu1, "--version", user=None).code == 0  # which its own hints are typed with


def test_what_stands_in_the_way_is_said(fleet: Fleet) -> None:
    gpu1 = fleet.boot("gpu1")
    queen = fleet.queen
    refused(rbeectl(queen, "add-hive", "gpu1", "--user", "root"), 1, "ssh to root@gpu1 failed")
    refused(rbeectl(queen, "add-hive", "gpu9"), 1, "ssh to gpu9 failed")
    refused(rbeectl(queen, "add-hive", "-oProxyCommand=x"), 2, "")
    refused(rbeectl(queen, "add-hive", "--", "-oProxyCommand=x"), 2, "HOST must be made of")
    give_ssh(fleet, gpu1)
    assert rbeectl(queen, "add-hive", "gpu1", "--user", "root", timeout=60).code == 0
