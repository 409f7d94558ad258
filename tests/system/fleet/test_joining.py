"""Joining: by a token, once, under a name that is free, and only the queen whose token it is."""

from __future__ import annotations

import json

import pytest
from testbed.relay import Relay

from rbee import __version__
from tests.system.commands import CATALOG, HIVE, await_stopped, rbeectl, rows, unit
from tests.system.fleet.conftest import MakeFleet
from tests.system.fleet.fleet import (
    MEMBERSHIP,
    PORT,
    SUITES,
    Fleet,
    curl_as_stranger,
    hive_pid,
    membership,
    refused,
)


@pytest.fixture(params=SUITES)
def fleet(request: pytest.FixtureRequest, make_fleet: MakeFleet) -> Fleet:
    """A queen on either Debian, and nobody yet."""
    return make_fleet(queen=request.param)


def test_a_machine_joins_with_a_token(fleet: Fleet) -> None:
    queen, gpu1 = fleet.queen, fleet.join("gpu1")
    fleet.join("gpu2")

    views = fleet.views()
    assert {name: (view["state"], view["is_remote"]) for name, view in views.items()} == {
        "gpu1": ("online", True),
        "gpu2": ("online", True),
    }
    # Real machines: each came from its own address, with a machine-id of its own.
    assert {name: view["address"] for name, view in views.items()} == {
        name: machine.address for name, machine in fleet.hives.items()
    }
    ids = {machine.run("cat", "/etc/machine-id").stdout for machine in (queen, *fleet.hives.values())}
    assert len(ids) == 3
    assert views["gpu1"]["devices"]["cpu"]["ram_bytes"] > 0
    # What is stored is derived, and tells neither the machine-id nor the token.
    stored = {row["id"]: row for row in rows(queen)}
    program = "6f1b9a27c3f84e5d9b40ae7d152c8e36"
    derived = gpu1.run("systemd-id128", "machine-id", f"--app-specific={program}").stdout.strip()
    assert stored["gpu1"]["machine"] == derived
    assert gpu1.run("stat", "-c", "%a %U", MEMBERSHIP).stdout == "600 rbee-hive\n"
    modes = queen.run("sh", "-c", "stat -c '%a %U' /var/lib/queen-rbee/tls /var/lib/queen-rbee/tls/*").stdout
    assert modes.splitlines() == ["700 queen-rbee"] + ["600 queen-rbee"] * 4


def test_a_machine_that_is_called_localhost_needs_a_name_and_is_told_how(fleet: Fleet) -> None:
    gpu1 = fleet.boot("gpu1")
    gpu1.run("hostname", "localhost")
    joining = ("join", f"{fleet.queen.address}:{PORT}", "--token", fleet.token())
    told = rbeectl(gpu1, *joining, user=None)
    refused(told, 1, "name must not be localhost")
    assert "--name NAME" in told.err
    assert rbeectl(gpu1, *joining, "--name", "gpu1", user=None).code == 0


def test_the_queen_is_closed_until_she_is_opened(fleet: Fleet) -> None:
    queen, gpu1 = fleet.queen, fleet.boot("gpu1")
    token = fleet.token()
    # She accepts over TCP, and could open no such socket herself.
    shown = unit(queen, "queen-rbee.service", "RestrictAddressFamilies", "PrivateNetwork")
    assert (shown["RestrictAddressFamilies"], shown["PrivateNetwork"]) == ("AF_UNIX", "yes")
    assert rbeectl(queen, "tcp", "disable").code == 0
    refused(rbeectl(gpu1, "join", "queen", "--token", token, user=None), 1, "nobody listens on queen:8500")
    refused(rbeectl(queen, "add-hive", "gpu1"), 1, "the queen is not open to other machines")

    opened = rbeectl(queen, "tcp", "enable", "--json")
    assert json.loads(opened.lines[-1])["listens"] == [f"[::]:{PORT}"] or "0.0.0.0" in opened.out
    assert "restarting the queen with her TCP socket" in opened.out
    # Refused before it was shown, the token is as good as new.
    assert rbeectl(gpu1, "join", "queen", "--token", token, user=None).code == 0
    fleet.await_state("gpu1", "online")


def test_a_token_is_for_one_use_one_name_and_a_time(fleet: Fleet) -> None:
    queen = fleet.queen
    gpu1, gpu2 = fleet.boot("gpu1"), fleet.boot("gpu2")
    spent = fleet.token()
    assert rbeectl(gpu1, "join", "queen", "--token", spent, user=None).code == 0
    before = rows(queen)

    def try_it(token: str, words: str) -> None:
        refused(rbeectl(gpu2, "join", "queen", "--token", token, user=None), 1, words)
        assert gpu2.run("ls", "-A", "/var/lib/rbee-hive").stdout == ""

    try_it(spent, "is spent")
    revoked = fleet.token()
    assert rbeectl(queen, "token", "revoke", revoked).out == f"Token {revoked[:8]} is revoked\n"
    try_it(revoked, "has been revoked")
    expired = fleet.token("--ttl", "1s")
    queen.run("sleep", "1.1")
    try_it(expired, "has expired")
    try_it(fleet.token("--hive", "gpu7"), "is for the hive gpu7")
    token_id, secret, fingerprint = fleet.token().split(".")
    try_it(f"{token_id}.{secret[::-1]}.{fingerprint}", "this queen did not issue the token")
    try_it(f"{token_id}.{secret}.{'0' * 64}", "is not the queen that the token is from")
    refused(rbeectl(gpu2, "join", "queen", "--token", "x.y.z", user=None), 2, "the token is damaged")

    assert [row["id"] for row in rows(queen)] == [row["id"] for row in before] == ["gpu1"]
    listed = rbeectl(queen, "token", "list", "--no-legend").out
    assert [line.split()[1] for line in listed.splitlines()] == [
        "spent",
        "revoked",
        "expired",
        "good",
        "good",
    ]
    assert len(fleet.told("join-refused")) == 5
    # No secret is anywhere but with who was told it.
    for token in (spent, revoked, expired):
        secret = token.split(".")[1]
        journal = queen.run("journalctl", "--no-pager", "-o", "export").stdout
        dump = queen.run("sh", "-c", f"cat {CATALOG}* | grep -c -F -e {secret}", check=False).stdout
        assert (secret in journal, dump) == (False, "0\n")


def test_a_join_that_is_played_again_is_refused(fleet: Fleet) -> None:
    gpu1 = fleet.boot("gpu1")
    # Byte for byte what a hive sends; over TLS nobody else would see it.
    request = (
        "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout /dev/null -subj / 2>&-"
    )
    asked = {
        "token": fleet.token(), "name": "gpu1", "machine": "0123456789abcdef" * 2, "version": __version__,
        "request": fleet.queen.run("sh", "-c", request).stdout,
    }  # fmt: skip
    options = ("-H", "Content-Type: application/json", "--data", json.dumps(asked))
    status, joined = curl_as_stranger(gpu1, "/v1/join", *options)
    assert (status, joined["hive_id"]) == ("201", "gpu1")
    before = rows(fleet.queen)

    status, told = curl_as_stranger(gpu1, "/v1/join", *options)
    assert (status, told["type"]) == ("403", "urn:rbee:problem:bad-token")
    assert told["detail"].endswith("is spent")
    assert rows(fleet.queen) == before
    assert gpu1.address in fleet.told("join-refused")[-1]["MESSAGE"]


def test_a_name_is_never_taken_over(fleet: Fleet) -> None:
    gpu1, gpu2 = fleet.join("gpu1"), fleet.boot("gpu2")
    before = rows(fleet.queen)

    for name in ("gpu1", "GPU1"):
        taken = rbeectl(gpu2, "join", "queen", "--token", fleet.token(), "--name", name, user=None)
        refused(taken, 1, f"the name gpu1 is taken by the hive at {gpu1.address}")
    twice = rbeectl(gpu1, "join", "queen", "--token", fleet.token(), "--name", "other", user=None)
    refused(twice, 1, "this machine is the hive gpu1 already")
    refused(
        rbeectl(gpu2, "join", "queen", "--token", fleet.token(), "--name", "localhost", user=None), 1,
        "must not be localhost",
    )  # fmt: skip
    assert [(row["id"], row["credential"]) for row in rows(fleet.queen)] == [
        (row["id"], row["credential"]) for row in before
    ]
    # Who is meant is the same for every verb.
    shown = rbeectl(fleet.queen, "show", "GPU1", "--property=Id", "--value")
    assert (shown.code, shown.out) == (0, "gpu1\n"), shown
    # Refused, it is what it was before.
    gpu1.run("systemctl", "start", HIVE)
    fleet.await_state("gpu1", "online")


def test_a_clone_is_noticed_and_both_are_named(fleet: Fleet) -> None:
    gpu1, gpu2 = fleet.join("gpu1"), fleet.boot("gpu2")
    copied = gpu1.run("cat", MEMBERSHIP).stdout
    gpu2.run("install", "-d", "-o", "rbee-hive", "-g", "rbee-hive", "-m", "0700", "/var/lib/rbee-hive")
    gpu2.run("install", "-o", "rbee-hive", "-m", "0600", "/dev/stdin", MEMBERSHIP, input=copied)
    gpu2.run("systemctl", "start", HIVE)

    cloned = fleet.await_told("hive-cloned")["MESSAGE"]
    assert gpu1.address in cloned
    assert gpu2.address in cloned
    # The first is not disturbed, and the second says why it is none.
    assert fleet.views()["gpu1"]["state"] == "online"
    assert fleet.views()["gpu1"]["address"] == gpu1.address
    assert "one is a copy of the other" in unit(gpu2, HIVE)["StatusText"]


def test_a_machine_from_the_same_image_does_not_join_as_one_that_lives(fleet: Fleet) -> None:
    gpu1, gpu2 = fleet.join("gpu1"), fleet.boot("gpu2")
    before = rows(fleet.queen)
    gpu2.run("tee", "/etc/machine-id", input=gpu1.run("cat", "/etc/machine-id").stdout)
    token = fleet.token()

    same = rbeectl(gpu2, "join", "queen", "--token", token, "--name", "gpu1", user=None)
    both = f"connected from {gpu1.address} already, and now also connects from {gpu2.address}"
    refused(same, 1, f"the beehive gpu1 is {both}")
    other = rbeectl(gpu2, "join", "queen", "--token", token, user=None)
    refused(other, 1, "this machine is the hive gpu1 already")
    assert gpu2.address in fleet.told("hive-cloned")[-1]["MESSAGE"]
    assert [row["credential"] for row in rows(fleet.queen)] == [row["credential"] for row in before]
    assert fleet.views()["gpu1"]["state"] == "online"
    # With an id of its own it is a machine of its own; the token was not spent on what was refused.
    gpu2.run("sh", "-c", "rm /etc/machine-id && systemd-machine-id-setup")
    assert rbeectl(gpu2, "join", "queen", "--token", token, user=None).code == 0
    fleet.await_state("gpu2", "online")


def test_a_hive_that_was_removed_is_told_so_and_joins_again(fleet: Fleet) -> None:
    gpu1 = fleet.join("gpu1")
    gpu1.run("systemctl", "stop", HIVE)
    fleet.await_state("gpu1", "offline")
    refused(rbeectl(fleet.queen, "remove-hive", "gpu1"), 1, "cannot be asked to leave")
    assert rbeectl(fleet.queen, "remove-hive", "--force", "gpu1").code == 0
    assert rows(fleet.queen) == []

    gpu1.run("systemctl", "start", HIVE)
    told = "until systemctl show -P StatusText rbee-hive | grep -q 'was removed'; do sleep 0.05; done"
    gpu1.run("sh", "-c", told, timeout=10)
    assert rows(fleet.queen) == []
    assert rbeectl(gpu1, "join", "queen", "--token", fleet.token(), user=None).code == 0
    fleet.await_state("gpu1", "online")

    # One that can be told forgets her.
    assert rbeectl(fleet.queen, "remove-hive", "gpu1").code == 0
    gpu1.run("sh", "-c", f"while test -e {MEMBERSHIP}; do sleep 0.02; done", timeout=10)
    await_stopped(gpu1, HIVE)


def test_a_hive_follows_its_queen_to_another_address_and_no_other_queen(
    fleet: Fleet, make_fleet: MakeFleet
) -> None:
    gpu1 = fleet.join("gpu1")
    pid = hive_pid(gpu1)
    with Relay((fleet.bridge.host("moved"), PORT), (fleet.queen.address, PORT)) as relay:
        assert rbeectl(gpu1, "join", "moved", user=None).code == 0
        fleet.await_state("gpu1", "online")
        assert membership(gpu1)["host"] == "moved"
        assert hive_pid(gpu1) != pid
        assert relay.up_bytes > 0
        other = make_fleet(queen=SUITES[0])
        with Relay((fleet.bridge.host("impostor"), PORT), (other.queen.address, PORT)) as impostor:
            refused(rbeectl(gpu1, "join", "impostor", user=None), 1, "is another queen")
            assert impostor.up_bytes > 0
        assert membership(gpu1)["host"] == "moved"
        assert rows(other.queen) == []


def test_who_cannot_join_is_told_why(fleet: Fleet) -> None:
    gpu1 = fleet.boot("gpu1")
    token = fleet.token()
    refused(rbeectl(fleet.queen, "join", "queen", "--token", token, user=None), 1, "has a queen of its own")
    refused(rbeectl(fleet.queen, "join", "queen", "--token", token), 77, "only root may")
    refused(rbeectl(gpu1, "join", "queen:x", "--token", token, user=None), 2, "must be HOST:PORT")
    refused(rbeectl(gpu1, "join", "queen:99999", "--token", token, user=None), 2, "from 1 to 65535")
    refused(
        rbeectl(gpu1, "join", "nowhere", "--token", token, user=None), 1, "the name in nowhere:8500 is not"
    )
    refused(rbeectl(gpu1, "join", "queen", user=None), 2, "--token is needed")
