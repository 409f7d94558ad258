"""add-hive HOST repairs: a new address, a credential that is not in the catalog, and reasons at once."""

from __future__ import annotations

import time

import pytest

from tests.system.commands import HIVE, override, rbeectl
from tests.system.fleet.conftest import MakeFleet
from tests.system.fleet.fleet import JOIN, MEMBERSHIP, SUITES, Fleet, membership, refused
from tests.system.fleet.ssh import give_ssh

CLIENT = "/usr/lib/python3/dist-packages/rbee/__init__.py"


@pytest.fixture(params=SUITES)
def fleet(request: pytest.FixtureRequest, make_fleet: MakeFleet) -> Fleet:
    """A queen, and gpu1 with a label and a cordon, who was brought by ssh; on either Debian."""
    fleet = make_fleet(queen=request.param)
    give_ssh(fleet, fleet.boot("gpu1", request.param))
    added = rbeectl(fleet.queen, "add-hive", "root@gpu1", timeout=60)
    assert added.code == 0, added
    assert rbeectl(fleet.queen, "label", "gpu1", "rack=3").code == 0
    assert rbeectl(fleet.queen, "cordon", "gpu1", "a fan is loud").code == 0
    return fleet


def moves(fleet: Fleet, port: int) -> None:
    opened = rbeectl(fleet.queen, "tcp", "enable", "--listen", f"0.0.0.0:{port}", user=None)
    assert opened.code == 0, opened
    fleet.await_state("gpu1", "offline")


def is_as_before(fleet: Fleet) -> None:
    view = fleet.await_state("gpu1", "online", 30)
    assert (view["labels"], view["cordoned"]) == ([{"key": "rack", "value": "3"}], "a fan is loud")


def test_a_hive_whose_queen_has_another_address_is_given_it(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    moves(fleet, 8600)
    added = rbeectl(fleet.queen, "add-hive", "root@gpu1", timeout=60)
    assert added.code == 0, added
    assert f"handing gpu1 the queen's new address, {fleet.queen.address}:8600" in added.out
    assert membership(gpu1)["port"] == 8600
    is_as_before(fleet)
    # It is the same credential: no token was made for it.
    assert len(rbeectl(fleet.queen, "token", "list", "--json").json["tokens"]) == 1

    # An address that is typed counts for a hive that is online, too.
    added = rbeectl(fleet.queen, "add-hive", "root@gpu1", "--queen", "queen:8600", timeout=60)
    assert added.code == 0, added
    assert membership(gpu1)["host"] == "queen"
    is_as_before(fleet)


def test_a_repair_that_is_cut_off_is_taken_up_after_the_boot(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    moves(fleet, 8600)
    # The machine loses its power while its hive is about to follow.
    override(gpu1, JOIN, "[Service]\nExecStartPre=sleep 60\n")
    began = fleet.queen.popen("rbeectl", "add-hive", "root@gpu1", user="ada")
    gpu1.run(
        "sh", "-c", f"until systemctl is-active {JOIN} | grep -q activating; do sleep 0.05; done", timeout=30
    )
    gpu1.cut_power()
    began.wait(90)
    assert began.returncode != 0
    is_as_before(fleet)
    assert membership(gpu1)["port"] == 8600
    assert rbeectl(fleet.queen, "add-hive", "root@gpu1", timeout=60).code == 0


def test_a_hive_that_joined_after_the_backup_joins_anew_and_keeps_its_marks(fleet: Fleet) -> None:
    queen, gpu1 = fleet.queen, fleet.hives["gpu1"]
    assert rbeectl(queen, "catalog", "backup", "/root/yesterday.db", user=None).code == 0
    assert rbeectl(gpu1, "join", "queen", "--token", fleet.token(), user=None).code == 0
    fleet.await_state("gpu1", "online")
    assert rbeectl(queen, "sleep").code == 0
    assert rbeectl(queen, "catalog", "restore", "/root/yesterday.db", user=None).code == 0
    assert rbeectl(queen, "wake").code == 0
    reason = fleet.await_state("gpu1", "offline")["reason"]
    assert f"gpu1 comes from {gpu1.address} with a credential that is not in the hive catalog" in reason

    began = time.monotonic()
    added = rbeectl(queen, "add-hive", "root@gpu1", timeout=60)
    assert added.code == 0, added
    assert "and a token for one use" in added.out
    assert time.monotonic() - began < 25
    is_as_before(fleet)


def test_versions_too_far_apart_end_the_wait(fleet: Fleet) -> None:
    queen, gpu1 = fleet.queen, fleet.hives["gpu1"]
    gpu1.run("sed", "-i", 's/^__version__ = .*/__version__ = "0.1.0"/', CLIENT)
    gpu1.run("systemctl", "stop", HIVE)
    fleet.await_state("gpu1", "offline")
    before = gpu1.run("cat", MEMBERSHIP).stdout

    began = time.monotonic()
    added = rbeectl(queen, "add-hive", "root@gpu1", timeout=60)
    assert time.monotonic() - began < 20
    refused(added, 1, "the beehive gpu1 has version 0.1.0, and the queen")
    assert "On gpu1: sudo apt install ./python3-rbee_*.deb ./rbee-hive_*.deb ./rbeectl_*.deb" in added.err
    assert gpu1.run("cat", MEMBERSHIP).stdout == before


def test_a_hive_that_does_not_dial_is_said_not_to(fleet: Fleet) -> None:
    queen, gpu1 = fleet.queen, fleet.hives["gpu1"]
    override(gpu1, HIVE, "[Service]\nPrivateNetwork=yes\n")
    gpu1.run("systemctl", "restart", HIVE)
    fleet.await_state("gpu1", "offline")
    added = rbeectl(queen, "add-hive", "root@gpu1", timeout=60)
    refused(added, 1, "the beehive gpu1 has not connected within 16 s")
    assert f"On gpu1: systemctl status {HIVE}" in added.err
