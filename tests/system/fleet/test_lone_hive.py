"""A machine that has a hive and no queen: each verb says so, in the same words, and none waits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed.debian import add_person
from testbed.machine import Machine
from testbed.trees import Trees

from tests.system.commands import HIVE, Answer, active, rbeectl, tries, type_in
from tests.system.fleet.fleet import PORT, REDIAL, SUITES, Fleet, fleet_of

NO_QUEEN = "rbeectl: there is no queen on this machine"

HERS = (
    ["add-hive", "localhost"], ["add-hive", "gpu2"], ["remove-hive", "gpu1"], ["list-hives"],
    ["list-devices"],
    ["show", "gpu1"], ["label", "gpu1", "rack=3"], ["cordon", "gpu1", "why"], ["uncordon", "gpu1"],
    ["tcp", "enable"], ["tcp", "disable"], ["tcp", "status"], ["token", "create"], ["token", "list"],
    ["token", "revoke", "0123abcd"], ["wake"], ["sleep"], ["status", "gpu1"], ["top", "-n", "1"], ["monitor"],
    ["metrics"], ["audit"], ["catalog", "backup", "/tmp/copy"], ["catalog", "check"],
)  # fmt: skip
"""What only a queen does."""


@pytest.fixture(scope="module", params=SUITES)
def fleet(request: pytest.FixtureRequest, trees: Trees, debs: list[Path]) -> Iterator[Fleet]:
    """A queen, and her hive gpu1 of either Debian, where somebody has a login who is in no group."""
    with fleet_of(trees, debs, queen=SUITES[0]) as fleet:
        gpu1 = fleet.boot("gpu1", request.param)
        add_person(gpu1, "grace")
        joined = rbeectl(gpu1, "join", "queen", "--token", fleet.token(), user=None)
        assert joined.code == 0, joined
        fleet.await_state("gpu1", "online")
        yield fleet


@pytest.fixture
def gpu1(fleet: Fleet) -> Machine:
    return fleet.hives["gpu1"]


def on_it(gpu1: Machine, *verb: str, user: str | None = "grace") -> Answer:
    return rbeectl(gpu1, *verb, user=user, timeout=20)


def test_before_it_has_joined_it_says_how_to(fleet: Fleet) -> None:
    gpu1 = fleet.boot("gpu2")
    add_person(gpu1, "grace")
    status = on_it(gpu1, "status")

    assert (status.code, status.err) == (3, "")
    assert "queen-rbee" not in status.out
    assert "This hive does not run: rbee-hive.service is inactive" in status.out
    assert "sudo rbeectl join QUEEN:8500 --token TOKEN" in status.out
    looked = on_it(gpu1, "doctor", user=None)
    assert looked.code == 0, looked
    assert "catalog" not in looked.out
    assert "note     link: this hive does not run" in looked.out
    assert tries(on_it(gpu1, "list-hives"))[0].endswith("sudo rbeectl join QUEEN:8500 --token TOKEN")
    fleet.retire("gpu2")


def test_once_it_has_joined_its_status_is_of_itself_and_of_its_queen(gpu1: Machine) -> None:
    for user in (None, "grace"):
        status = on_it(gpu1, "status", user=user)
        assert (status.code, status.err) == (0, "")
        assert f"This hive is connected to its queen at queen:{PORT}" in status.out
        assert "queen-rbee" not in status.out
        assert on_it(gpu1, "status", "--json", user=user).json["remote_queen"] == {
            "address": f"queen:{PORT}", "connected": True, "waiting": False,
        }  # fmt: skip
        looked = on_it(gpu1, "doctor", user=user)
        assert looked.code == 0, looked
        assert "catalog" not in looked.out
        assert "ok       this hive is connected to its queen" in looked.out
    assert f"it is on another machine, queen:{PORT}" in on_it(gpu1, "version").out


@pytest.mark.parametrize("verb", HERS, ids=" ".join)
def test_what_only_a_queen_does_is_said_to_be_elsewhere(gpu1: Machine, verb: list[str]) -> None:
    refused = on_it(gpu1, *verb)

    assert (refused.code, refused.out) == (3, ""), refused
    assert refused.err.splitlines()[0] == NO_QUEEN
    assert tries(refused)[0] == f"Type it on the machine of this hive's queen, queen:{PORT}"


def test_who_may_not_read_the_journal_is_sent_to_root_alone(gpu1: Machine) -> None:
    refused = on_it(gpu1, "logs")

    assert refused.code == 77
    assert tries(refused) == ["sudo rbeectl logs"]
    assert "rbee-hive" in type_in(gpu1, tries(refused)[0]).out


def test_a_hive_that_is_cut_off_is_not_connected(fleet: Fleet, gpu1: Machine) -> None:
    fleet.queen.run("systemctl", "stop", "queen-rbee.service")
    told = f"until systemctl show -P StatusText {HIVE} | grep -q 'nobody listens'; do sleep 0.05; done"
    gpu1.run("sh", "-c", told, timeout=20)

    status = on_it(gpu1, "status")
    assert status.code == 3
    assert f"This hive is not connected to its queen at queen:{PORT}: nobody listens" in status.out
    looked = on_it(gpu1, "doctor")
    assert looked.code == 1
    assert f"problem  link: this hive is not connected to its queen at queen:{PORT}" in looked.out
    assert rbeectl(fleet.queen, "wake").code == 0
    fleet.await_state("gpu1", "online")
    assert on_it(gpu1, "status").code == 0


def test_one_that_its_queen_has_shut_down_waits_for_her(fleet: Fleet, gpu1: Machine) -> None:
    assert rbeectl(fleet.queen, "shutdown").code == 0
    waiting = f'until [ "$(systemctl is-active {REDIAL})" = active ]; do sleep 0.02; done'
    gpu1.run("sh", "-c", waiting, timeout=10)
    said = f"until systemctl show -P StatusText {REDIAL} | grep -q waits; do sleep 0.02; done"
    gpu1.run("sh", "-c", said, timeout=10)

    status = on_it(gpu1, "status")
    assert status.code == 3
    assert f"This hive waits for its queen at queen:{PORT}, who has shut it down" in status.out
    assert on_it(gpu1, "doctor").code == 0
    assert rbeectl(fleet.queen, "wake").code == 0
    fleet.await_state("gpu1", "online", 30)


def test_its_shutdown_is_root_s_and_of_this_hive_alone(fleet: Fleet, gpu1: Machine) -> None:
    refused = on_it(gpu1, "shutdown")
    assert refused.code == 77
    assert tries(refused) == ["sudo rbeectl shutdown"]
    assert active(gpu1, HIVE) == ["active"]

    off = type_in(gpu1, tries(refused)[0])
    assert (off.code, off.out) == (0, "This machine's hive is off\n")
    assert active(gpu1, HIVE, "rbee-hive.socket") == ["inactive", "inactive"]
    assert on_it(gpu1, "status").code == 3
    started = next(line for line in on_it(gpu1, "status").lines if "systemctl start" in line)
    assert type_in(gpu1, started.removeprefix("  try: ")).code == 0
    fleet.await_state("gpu1", "online")


def test_the_command_does_not_recommend_a_queen(gpu1: Machine) -> None:
    shown = gpu1.run("dpkg-query", "-W", "-f", "${Recommends}|${Suggests}", "rbeectl").stdout

    recommended, suggested = shown.split("|")
    assert "rbee-queen" not in recommended
    assert "rbee-queen" in suggested
