"""A machine with a queen whose hive has joined another: nobody calls that hive online, and it is mended."""

from __future__ import annotations

import pytest

from tests.system.commands import HIVE, QUEEN, await_state, put, rbeectl, tries, type_in
from tests.system.fleet.conftest import MakeFleet
from tests.system.fleet.fleet import PORT, SUITES, Fleet, refused

REMOTE = f"the hive gpu1 of the queen at queen:{PORT}"
INSTALL = "dpkg -i /root/debs/*.deb 2>&1"
LEAVE = "sudo apt remove rbee-queen"


@pytest.fixture(params=SUITES)
def fleet(request: pytest.FixtureRequest, make_fleet: MakeFleet) -> Fleet:
    """A queen and a hive on either Debian, of which the hive's machine is about to get all packages."""
    fleet = make_fleet(queen=request.param)
    gpu1 = fleet.boot("gpu1", request.param)
    assert rbeectl(gpu1, "join", "queen", "--token", fleet.token(), user=None).code == 0
    fleet.await_state("gpu1", "online")
    for deb in fleet.debs:
        gpu1.copy_in(deb, f"/root/debs/{deb.name}")
    return fleet


def test_a_hive_that_becomes_the_queen_s_machine_is_named_until_it_is_mended(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    installed = gpu1.run("sh", "-c", INSTALL, timeout=120)
    assert (
        "its hive has joined the queen\n  at queen: neither queen receives its heartbeats" in installed.stdout
    )
    assert LEAVE in installed.stdout

    def is_named() -> None:
        added = rbeectl(gpu1, "add-hive", "localhost", user=None)
        refused(added, 1, f"the hive on this machine is {REMOTE}")
        assert "Online" not in added.out
        assert tries(added)[0].startswith("To make it this queen's hive: sudo rbeectl doctor --fix")
        (hive,) = rbeectl(gpu1, "list-hives", "--json", user=None).json["hives"]
        assert (hive["state"], hive["status"], hive["last_beat_ms"]) == ("offline", "offline", None)
        assert REMOTE in hive["reason"]

    is_named()
    status = rbeectl(gpu1, "status", user=None).out
    assert f"Problem: it is {REMOTE}, and this machine has a queen of its own" in status
    doctor = rbeectl(gpu1, "doctor", user=None)
    assert doctor.code != 0
    assert (
        f"its hive belongs to the queen at queen:{PORT}; neither queen receives its heartbeats" in doctor.out
    )
    # It stays so, whoever dies in the middle.
    gpu1.run("systemctl", "kill", "--signal=KILL", QUEEN)
    is_named()
    gpu1.reboot()
    is_named()

    mended = rbeectl(gpu1, "doctor", "--fix", user=None, timeout=60)
    assert mended.code == 0, mended
    assert gpu1.run("ls", "-A", "/var/lib/rbee-hive").stdout == "membership.aside\n"
    added = rbeectl(gpu1, "add-hive", "localhost", user=None)
    assert added.code == 0, added
    assert "Hive localhost is Online" in added.out
    assert await_state(gpu1, "online")["last_beat_ms"] is not None
    assert "Problem" not in rbeectl(gpu1, "status", user=None).out
    # And it is so after a boot.
    gpu1.reboot()
    assert rbeectl(gpu1, "add-hive", "localhost", user=None).code == 0


def test_where_nobody_has_added_it_the_doctor_takes_no_hive_from_its_queen(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    gpu1.run("sh", "-c", INSTALL, timeout=120)
    doctor = rbeectl(gpu1, "doctor", "--fix", user=None, timeout=60)
    assert doctor.code != 0
    assert f"hint: To leave the hive with the other queen: {LEAVE}" in doctor.out
    assert gpu1.run("ls", "-A", "/var/lib/rbee-hive").stdout == "membership\n"
    # Which is what helps: without the second queen the hive is the first one's again.
    gpu1.run("dpkg", "--remove", "rbee", "rbee-gateway", "rbee-queen", timeout=60)
    gpu1.run("systemctl", "start", HIVE)
    fleet.await_state("gpu1", "online")


def test_a_local_hive_by_another_name_is_named_with_the_file_that_has_it(fleet: Fleet) -> None:
    queen, place = fleet.queen, "/etc/rbee/rbee.conf.d/90-id.conf"
    put(queen, place, "[Hive]\nId=foo\n")
    for _ in range(2):  # it starts, and then it runs
        added = rbeectl(queen, "add-hive", "localhost")
        refused(added, 1, f"the hive on this machine calls itself foo, by [Hive] Id= in {place}")
        assert "Online" not in added.out
    doctor = rbeectl(queen, "doctor", user=None)
    assert doctor.code != 0
    assert f"calls itself foo, by [Hive] Id= in {place}" in doctor.out

    queen.run("sed", "-i", "/^Id=foo$/d", place)
    _, restart = tries(added)[0].split("then: ")
    for command in restart.split("; "):
        done = type_in(queen, command)
        assert done.code == 0, done
    assert await_state(queen, "online")["last_beat_ms"] is not None
