"""A fleet from day to day: off and on again, marks on hives, who did what, versions, reboots, backups."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed.trees import Trees

from rbee import __version__
from tests.system.commands import HIVE, QUEEN, active, await_stopped, put, rbeectl, rows, tries, unit
from tests.system.fleet.conftest import MakeFleet
from tests.system.fleet.fleet import (
    JOIN,
    MEMBERSHIP,
    REDIAL,
    SUITES,
    Fleet,
    fleet_of,
    hive_pid,
    refused,
)

TCP_SOCKET = "queen-rbee-tcp.socket"


@pytest.fixture(scope="module")
def fleet(trees: Trees, debs: list[Path]) -> Iterator[Fleet]:
    """A queen and two hives, on either Debian, whom each test leaves online."""
    with fleet_of(trees, debs, queen=SUITES[-1], hives=2) as fleet:
        yield fleet


def test_a_shutdown_takes_the_hives_along_and_they_are_back_when_she_wakes(fleet: Fleet) -> None:
    gpu1, gpu2 = fleet.hives.values()
    gpu2.cut()
    fleet.await_state("gpu2", "offline")

    off = rbeectl(fleet.queen, "shutdown")
    assert off.code == 0, off
    assert "(queen bee)  the beehive gpu1 is shutting down" in off.lines
    assert "(queen bee)  the beehive gpu2 is not connected, and was not asked to shut down" in off.lines
    await_stopped(gpu1, HIVE)
    waiting = f'until [ "$(systemctl is-active {REDIAL})" = active ]; do sleep 0.02; done'
    gpu1.run("sh", "-c", waiting, timeout=10)
    assert active(fleet.queen, QUEEN, TCP_SOCKET, "queen-rbee.socket") == ["inactive"] * 3
    # Who could not be told runs on, and neither of them wakes her.
    gpu2.mend()
    told = f"until systemctl show -P StatusText {HIVE} | grep -q 'nobody listens'; do sleep 0.05; done"
    gpu2.run("sh", "-c", told, timeout=20)
    assert active(gpu2, HIVE) == ["active"]
    assert active(fleet.queen, QUEEN) == ["inactive"]

    assert rbeectl(fleet.queen, "wake").code == 0
    fleet.await_state("gpu1", "online", 30)
    fleet.await_state("gpu2", "online", 30)
    assert active(gpu1, REDIAL) == ["inactive"]


def test_sleep_leaves_them_be_and_they_do_not_wake_her(fleet: Fleet) -> None:
    pids = {name: hive_pid(machine) for name, machine in fleet.hives.items()}
    assert rbeectl(fleet.queen, "sleep").code == 0
    assert active(fleet.queen, QUEEN, TCP_SOCKET, "queen-rbee.socket") == ["inactive", "inactive", "active"]
    for machine in fleet.hives.values():
        told = f"until systemctl show -P StatusText {HIVE} | grep -q 'nobody listens'; do sleep 0.05; done"
        machine.run("sh", "-c", told, timeout=10)
    assert active(fleet.queen, QUEEN) == ["inactive"]

    assert rbeectl(fleet.queen, "wake").code == 0
    for name, machine in fleet.hives.items():
        fleet.await_state(name, "online")
        assert hive_pid(machine) == pids[name]


def test_an_administrator_s_stop_stays(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    gpu1.run("systemctl", "stop", HIVE)
    assert fleet.await_state("gpu1", "offline")["reason"] == "stopped by an administrator"
    fleet.queen.run("systemctl", "restart", QUEEN)
    fleet.await_state("gpu2", "online")
    assert active(gpu1, HIVE, REDIAL) == ["inactive", "inactive"]
    gpu1.run("systemctl", "start", HIVE)
    fleet.await_state("gpu1", "online")


def test_a_machine_that_reboots_is_back_by_itself(fleet: Fleet) -> None:
    gpu2 = fleet.hives["gpu2"]
    gpu2.reboot()
    fleet.await_state("gpu2", "online", 30)


def test_a_queen_that_reboots_wakes_for_her_hives(fleet: Fleet) -> None:
    fleet.queen.reboot()
    for name in fleet.hives:
        fleet.await_state(name, "online", 30)


def test_labels_select_and_a_cordon_says_why(fleet: Fleet) -> None:
    queen = fleet.queen

    def listed(*options: str) -> list[str]:
        return [line.split()[0] for line in rbeectl(queen, "list-hives", "--no-legend", *options).lines]

    assert rbeectl(queen, "label", "gpu1", "rack=3", "spare=").out == (
        "Hive gpu1 has the labels rack=3,spare=\n"
    )
    assert rbeectl(queen, "label", "gpu2", "rack=4").code == 0
    assert listed("-l", "rack=3") == ["gpu1"]
    assert listed("-l", "rack!=3") == ["gpu2"]
    assert listed("-l", "spare") == ["gpu1"]
    assert listed("-l", "!spare,rack=4") == ["gpu2"]
    assert listed("-l", "rack=3,rack=4") == []
    refused(rbeectl(queen, "list-hives", "-l", "a=b=c"), 2, "-l takes KEY=VALUE")
    refused(rbeectl(queen, "label", "gpu1", "rack"), 2, "is neither KEY=VALUE nor KEY-")
    refused(rbeectl(queen, "label", "gpu9", "a=b"), 4, "hive 'gpu9' is not in the hive catalog")
    assert rbeectl(queen, "label", "gpu1", "rack-", "spare-").out == "Hive gpu1 has the labels (none)\n"

    assert rbeectl(queen, "cordon", "gpu1", "a fan is loud").code == 0
    assert "cordoned: a fan is loud" in rbeectl(queen, "list-hives", "--full").out
    assert rbeectl(queen, "show", "gpu1", "-p", "Cordoned", "--value").out == "a fan is loud\n"
    assert rbeectl(queen, "uncordon", "gpu1").out == "Hive gpu1 is not cordoned\n"
    refused(rbeectl(queen, "cordon", "gpu1", " "), 2, "REASON must not be empty")


def test_who_did_what_is_in_the_audit_and_in_the_journal(fleet: Fleet) -> None:
    queen = fleet.queen
    assert rbeectl(queen, "label", "gpu1", "who=ada").code == 0
    assert rbeectl(queen, "label", "gpu1", "who-", user=None).code == 0
    uid = int(queen.run("id", "-u", "ada").stdout)
    entries = rbeectl(queen, "audit", "--json").json["entries"]
    told = [
        (entry["text"], entry["actor_uid"]) for entry in entries if "labels of hive gpu1" in entry["text"]
    ]
    assert told[-2:] == [
        ("the labels of hive gpu1 are who=ada", uid),
        ("the labels of hive gpu1 are none", 0),
    ]
    joined = next(entry for entry in entries if entry["text"].startswith("hive gpu2 joined"))
    credential = {row["id"]: row["credential"] for row in rows(queen)}["gpu2"]
    assert joined["actor_credential"] == credential
    changes = queen.journal("RBEE_EVENT=catalog-changed", f"RBEE_ACTOR_CREDENTIAL={credential}")
    assert any(entry["MESSAGE"] == joined["text"] for entry in changes)
    assert [entry["hive"] for entry in rbeectl(queen, "audit", "gpu2", "--json").json["entries"]].count(
        "gpu1"
    ) == 0
    assert len(rbeectl(queen, "audit", "-n", "1", "--no-legend").lines) == 1


def test_a_list_tells_address_interval_and_version(fleet: Fleet) -> None:
    header, *listed = rbeectl(fleet.queen, "list-hives", "--full").lines
    columns = ["LAST", "BEAT", "REASON", "DEVICES", "WORKERS", "ADDRESS", "VERSION", "INTERVAL"]
    assert header.split() == ["HIVE", "STATE", "SINCE", *columns, "AGE", "LABELS"]
    assert fleet.hives["gpu1"].address in listed[0]
    versions = rbeectl(fleet.queen, "version", "--json").json
    assert {hive["version"] for hive in versions["hives"]} == {versions["queen"]["version"]}
    for name in fleet.hives:
        assert rbeectl(fleet.queen, "status", name).code == 0


@pytest.mark.parametrize(("minor", "is_welcome"), [(1, True), (-1, True), (2, False)])
def test_one_minor_version_apart_works_and_two_are_refused(
    make_fleet: MakeFleet, minor: int, is_welcome: bool
) -> None:
    fleet = make_fleet(queen=SUITES[0])
    gpu1 = fleet.boot("gpu1")
    source = "/usr/lib/python3/dist-packages/rbee/__init__.py"
    major, old, patch = (
        gpu1.run("sed", "-n", 's/^__version__ = "\\(.*\\)"/\\1/p', source).stdout.strip().split(".")
    )
    version = f"{major}.{int(old) + minor}.{patch}"
    gpu1.run("sed", "-i", f's/^__version__ = .*/__version__ = "{version}"/', source)

    joined = rbeectl(gpu1, "join", "queen", "--token", fleet.token(), user=None)
    if is_welcome:
        assert joined.code == 0, joined
        assert fleet.await_state("gpu1", "online")["version"] == version
    else:
        refused(joined, 1, f"has version {version}, and the queen")
        assert "rbee-queen on the queen's machine is the older" in joined.err
        assert tries(joined) == [
            "On the queen's machine: sudo apt install ./python3-rbee_*.deb ./rbee-queen_*.deb ./rbeectl_*.deb"
        ]


def test_a_hive_that_was_upgraded_too_far_is_shown_with_the_cure(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(queen=SUITES[0], hives=1)
    gpu1 = fleet.hives["gpu1"]
    source = "/usr/lib/python3/dist-packages/rbee/__init__.py"
    gpu1.run("sed", "-i", 's/^__version__ = .*/__version__ = "0.99.0"/', source)
    gpu1.run("systemctl", "restart", HIVE)

    words = "the beehive gpu1 has version 0.99.0, and the queen"
    told = f"until systemctl show -P StatusText {HIVE} | grep -q '{words}'; do sleep 0.05; done"
    gpu1.run("sh", "-c", told, timeout=15)
    view = fleet.views()["gpu1"]
    assert (view["state"], view["reason"].startswith(words)) == ("offline", True)
    gpu1.run("sed", "-i", f's/^__version__ = .*/__version__ = "{__version__}"/', source)
    gpu1.run("systemctl", "restart", HIVE)
    fleet.await_state("gpu1", "online")


def test_a_hive_that_needs_the_network_has_that_and_no_more(fleet: Fleet) -> None:
    for machine in fleet.hives.values():
        for name, most in ((HIVE, 1.5), (JOIN, 1.2), (REDIAL, 1.2)):
            told = machine.run("systemd-analyze", "security", "--no-pager", name).stdout.splitlines()[-1]
            assert float(re.findall(r"\d+\.\d", told)[-1]) <= most, told
    # Beside a queen it has none.
    shown = unit(fleet.queen, HIVE, "PrivateNetwork", "RestrictAddressFamilies")
    assert (shown["PrivateNetwork"], shown["RestrictAddressFamilies"]) == ("yes", "AF_UNIX")


def test_the_address_is_a_drop_in_of_root_s(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(queen=SUITES[0])
    queen = fleet.queen
    refused(
        rbeectl(queen, "tcp", "enable", "--listen", f"{queen.address}:9000"),
        77,
        "only root may set the address",
    )
    refused(rbeectl(queen, "tcp", "enable", "--listen", "queen:9000", user=None), 2, "an IP address")
    moved = rbeectl(queen, "tcp", "enable", "--listen", f"{queen.address}:9000", user=None)
    assert moved.code == 0, moved
    assert f"The queen listens on {queen.address}:9000" in moved.out
    gpu1 = fleet.boot("gpu1")
    token = fleet.token()
    refused(rbeectl(gpu1, "join", "queen", "--token", token, user=None), 1, "nobody listens on queen:8500")
    assert rbeectl(gpu1, "join", "queen:9000", "--token", token, user=None).code == 0
    fleet.await_state("gpu1", "online")


@pytest.mark.parametrize("suite", SUITES)
def test_an_address_that_does_not_work_leaves_the_queen_open_as_she_was(
    make_fleet: MakeFleet, suite: str
) -> None:
    fleet = make_fleet(queen=suite, hives=1)
    queen = fleet.queen

    def listens() -> list[str]:
        return list(rbeectl(queen, "tcp", "status", "--json").json["listens"])

    def takes(port: int) -> None:
        """Another program takes it, and is there."""
        serve = ("python3", "-c", f"import socket, time; s = socket.create_server(('', {port})); print(1, "
                 "flush=True); time.sleep(600)")  # fmt: skip
        taking = queen.popen(*serve)
        assert taking.stdout
        assert taking.stdout.readline() == "1\n"

    before, pid = listens(), unit(queen, QUEEN)["MainPID"]
    takes(9000)
    for listen, words in (
        ("192.0.2.1:9000", "this machine does not have the address 192.0.2.1"),
        (f"{queen.address}:9000", "another program already listens on port 9000"),
    ):
        refused(rbeectl(queen, "tcp", "enable", "--listen", listen, user=None), 2, words)
        assert (listens(), unit(queen, QUEEN)["MainPID"]) == (before, pid)
    assert queen.run("ls", f"/etc/systemd/system/{TCP_SOCKET}.d", check=False).stdout == ""
    fleet.await_state("gpu1", "online")
    # She moves from one address to a narrower one at the same port, which is her own.
    assert rbeectl(queen, "tcp", "enable", "--listen", f"{queen.address}:8500", user=None).code == 0
    assert listens() == [f"{queen.address}:8500"]
    fleet.await_state("gpu1", "online")

    # Closed, and somebody takes her port: she stays closed, and awake.
    assert rbeectl(queen, "tcp", "disable").code == 0
    takes(8500)
    told = rbeectl(queen, "tcp", "enable")
    refused(told, 1, f"{TCP_SOCKET} is failed")
    assert "the queen listens on its own machine only, as before" in told.err
    shown = rbeectl(queen, "tcp", "status", "--json").json
    assert (shown["is_open"], shown["listens"]) == (False, [])
    assert active(queen, QUEEN) == ["active"]


def test_a_catalog_of_yesterday_forgets_who_joined_since_and_they_are_told(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(queen=SUITES[0], hives=1)
    queen = fleet.queen
    unused = fleet.token()
    assert rbeectl(queen, "catalog", "backup", "/root/yesterday.db", user=None).code == 0
    gpu2 = fleet.join("gpu2")
    assert rbeectl(queen, "shutdown").code == 0
    restored = rbeectl(queen, "catalog", "restore", "/root/yesterday.db", user=None)
    assert restored.code == 0, restored
    assert rbeectl(queen, "wake").code == 0

    fleet.await_state("gpu1", "online", 30)
    told = f"until systemctl show -P StatusText {HIVE} | grep -q 'was removed'; do sleep 0.05; done"
    gpu2.run("sh", "-c", told, timeout=30)
    assert set(fleet.states()) == {"gpu1"}
    # What was spent since would be good again: nobody gets in by a token of a catalog that came back.
    refused(rbeectl(gpu2, "join", "queen", "--token", unused, user=None), 1, "has been revoked")
    assert rbeectl(gpu2, "join", "queen", "--token", fleet.token(), user=None).code == 0
    fleet.await_state("gpu2", "online")


def test_lost_keys_have_a_way_back(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(queen=SUITES[-1], hives=1)
    queen, gpu1 = fleet.queen, fleet.hives["gpu1"]
    queen.run("rm", "/var/lib/queen-rbee/tls/ca.key")
    queen.run("systemctl", "restart", QUEEN, check=False)
    assert "cannot be used" in fleet.await_told("queen-failed")["MESSAGE"]
    queen.run("rm", "-r", "/var/lib/queen-rbee/tls")
    assert rbeectl(queen, "tcp", "enable").code == 0
    told = f"until systemctl show -P StatusText {HIVE} | grep -q 'another queen'; do sleep 0.05; done"
    gpu1.run("sh", "-c", told, timeout=80)
    assert rbeectl(gpu1, "join", "queen", "--token", fleet.token(), user=None).code == 0
    fleet.await_state("gpu1", "online")


def test_a_ca_of_the_administrator_s_own(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(queen=SUITES[-1])
    queen = fleet.queen
    queen.run("sh", "-c", """
        cd /root && umask 077
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt \
            -subj '/CN=Example CA' -days 30 -addext basicConstraints=critical,CA:TRUE 2>/dev/null
    """)  # fmt: skip
    put(
        queen,
        f"/etc/systemd/system/{QUEEN}.d/ca.conf",
        "[Service]\nLoadCredential=rbee.ca.crt:/root/ca.crt\nLoadCredential=rbee.ca.key:/root/ca.key\n",
    )
    queen.run("systemctl", "daemon-reload")
    queen.run("systemctl", "restart", QUEEN)
    shown = json.loads(rbeectl(queen, "tcp", "status", "--json").out)
    own = queen.run("openssl", "x509", "-in", "/root/ca.crt", "-noout", "-fingerprint", "-sha256").stdout
    assert shown["fingerprint"] == own.strip().partition("=")[2].replace(":", "").lower()
    gpu1 = fleet.join("gpu1")
    assert "Example CA" in gpu1.run("sh", "-c", f"openssl x509 -in {MEMBERSHIP} -noout -issuer").stdout
