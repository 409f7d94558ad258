"""What strangers, other queens and hives that lie may do to a queen who is open: nothing."""

from __future__ import annotations

import json
import re
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from testbed.trees import Trees

from rbee.queen.restraint import AT_ONCE
from rbee.uplink.frames import PROTOCOL, UplinkRoutes
from rbee.wire.routes import FleetRoutes, LeaseRoutes, QueenRoutes
from tests.system.commands import HIVE, QUEEN, altered, curl, main_pid, override, put, rbeectl, rows, unit
from tests.system.fleet.conftest import MakeFleet
from tests.system.fleet.faults import counted, rejected_with_reset
from tests.system.fleet.fleet import (
    MEMBERSHIP,
    PORT,
    SUITES,
    Fleet,
    curl_as_hive,
    curl_as_stranger,
    fleet_of,
    refused,
)

RESETS = struct.pack("ii", 1, 0)


@pytest.fixture(scope="module")
def fleet(trees: Trees, debs: list[Path]) -> Iterator[Fleet]:
    """A queen and two hives, on either Debian, whom each test leaves online."""
    with fleet_of(trees, debs, queen=SUITES[-1], hives=2) as fleet:
        yield fleet


@pytest.fixture(autouse=True)
def nobody_is_harmed(request: pytest.FixtureRequest) -> Iterator[None]:
    """The same queen, the same hives, and no traceback."""
    if "fleet" not in request.fixturenames:
        yield
        return
    fleet: Fleet = request.getfixturevalue("fleet")
    pid, before = main_pid(fleet.queen, QUEEN), [row["credential"] for row in rows(fleet.queen)]
    yield
    assert main_pid(fleet.queen, QUEEN) == pid
    assert [row["credential"] for row in rows(fleet.queen)] == before
    for name in fleet.hives:
        fleet.await_state(name, "online")
    said = fleet.queen.journal("_TRANSPORT=stdout", f"--unit={QUEEN}")
    assert [entry["MESSAGE"] for entry in said if "Traceback" in str(entry["MESSAGE"])] == []


def connect(fleet: Fleet) -> socket.socket:
    return socket.create_connection((fleet.queen.address, PORT), 10)


def test_many_connection_resets_leave_the_queen_running(fleet: Fleet) -> None:
    """BlueChi's listener ends with one reset during accept, in 7 of 15 tries."""
    with counted(fleet.queen, PORT, "rst") as fault:
        for _ in range(2000):
            with connect(fleet) as channel:
                channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESETS)
    assert fault.packets >= 2000
    assert curl_as_stranger(fleet.hives["gpu1"], "/v1/ca")[0] == "200"


def test_connections_that_never_speak_take_nobody_s_place(fleet: Fleet) -> None:
    pid = int(unit(fleet.queen, QUEEN, "MainPID")["MainPID"])
    with counted(fleet.queen, PORT, "syn") as fault, ExitStack() as open_ones:
        began, made = time.monotonic(), 0
        while made < 5000:
            channel = socket.socket()
            channel.setblocking(False)
            channel.connect_ex((fleet.queen.address, PORT))
            open_ones.callback(channel.close)
            made += 1
            if made % 500 == 0:
                # In between, whoever belongs here is served.
                assert curl_as_hive(fleet.hives["gpu1"], "/v1/ca")[0] == "200"
        held = fleet.queen.run("sh", "-c", f"ls /proc/{pid}/fd | wc -l").stdout
        assert int(held) < 1000
        assert fault.packets >= 5000
        print(f"5000 in {time.monotonic() - began:.1f} s, {held.strip()} descriptors held")
        assert set(fleet.states().values()) == {"online"}


def test_descriptors_that_run_out_come_back(make_fleet: MakeFleet) -> None:
    """BlueChi at 1,014 nodes never accepts again, even after all have left."""
    fleet = make_fleet(queen=SUITES[0], hives=1)
    override(fleet.queen, QUEEN, "[Service]\nLimitNOFILE=96\n")
    fleet.queen.run("systemctl", "restart", QUEEN)
    fleet.await_state("gpu1", "online")
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    exhausted = "no connection over TCP can be accepted"
    with ExitStack() as open_ones:
        for _ in range(200):
            open_ones.enter_context(connect(fleet))
        until = f"until journalctl -q -u {QUEEN} | grep -q '{exhausted}'; do sleep 0.05; done"
        fleet.queen.run("sh", "-c", until, timeout=15)
    with connect(fleet) as channel, context.wrap_socket(channel) as speaking:
        speaking.settimeout(15)
        speaking.sendall(b"GET /v1/ca HTTP/1.1\r\nHost: q\r\n\r\n")
        assert speaking.recv(100).startswith(b"HTTP/1.1 200")
    fleet.await_state("gpu1", "online")
    assert curl_as_hive(fleet.hives["gpu1"], "/v1/ca")[0] == "200"


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\nHost: queen\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 600,
        b"SSH-2.0-OpenSSH_9.2\r\n",
        bytes(65536),
        b"",
    ],
    ids=["plain HTTP", "TLS garbage", "ssh", "zeros", "a port scan"],
)
def test_what_is_no_tls_gets_nowhere(fleet: Fleet, said: bytes) -> None:
    answer = b""
    with connect(fleet) as channel:
        try:
            channel.sendall(said)
            if not said:
                return
            while part := channel.recv(4096):
                answer += part
        except ConnectionError:
            pass
    # An alert of TLS at the most.
    assert b"HTTP" not in answer
    assert len(answer) < 50


def test_old_tls_is_refused(fleet: Fleet) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with connect(fleet) as channel, pytest.raises((ssl.SSLError, ConnectionError)):
        context.wrap_socket(channel)


def test_without_a_certificate_there_is_the_ca_and_joining(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    for route in (*FleetRoutes.ALL, *UplinkRoutes.ALL):
        path = route.url(dial_id="0" * 32) if "{" in route.path else route.path
        options = ("-X", route.method, "-H", "Content-Type: application/json", "--data", "{}")
        status, told = curl_as_stranger(gpu1, path, *(options if route.method == "POST" else ()))
        if route is FleetRoutes.CA:
            assert status == "200"
        elif route is FleetRoutes.JOIN:
            assert (status, told["type"]) == ("400", "urn:rbee:problem:bad-input")
        else:
            assert (status, told["type"]) == ("403", "urn:rbee:problem:not-permitted"), route.name


def test_a_hive_s_certificate_opens_nothing_of_an_operator_s(fleet: Fleet) -> None:
    for route in (*QueenRoutes.ALL, *LeaseRoutes.ALL):
        values = {"hive_id": "gpu1", "job_id": "0" * 32, "token_id": "0" * 8, "model": "bee", "key": "ada"}
        status, _ = curl_as_hive(fleet.hives["gpu1"], route.path.format(**values), "-X", route.method)
        assert status in ("404", "405"), route.name


BEATS = """
import asyncio, json, sys
from pathlib import Path
from rbee.wire.heartbeats import Heartbeat
from rbee.errors import RbeeError
from rbee.hive.membership import Memberships
from rbee.uplink.offer import Offer

async def main():
    offer = Offer(Memberships(Path("/var/lib/rbee-hive")).load().queen())
    async with offer.hold("0" * 32, None):
        for name in sys.argv[1:]:
            try:
                await offer.beat(Heartbeat(name, "2026-01-31T12:00:00Z", (), "0" * 32, version="0.4.0"))
            except RbeeError as error:
                print(json.dumps(error.to_problem()))

asyncio.run(main())
"""
"""Beats for other hives, over the connection of one."""


def test_a_beat_for_another_hive_is_refused(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    before = fleet.views()["gpu2"]["version"]
    put(gpu1, "/root/beats.py", BEATS)
    gpu1.run("systemctl", "stop", HIVE)
    said = gpu1.run("python3", "-I", "/root/beats.py", "gpu2", "localhost", "nobody").stdout.splitlines()
    gpu1.run("systemctl", "start", HIVE)
    assert len(said) == 3
    for told in map(json.loads, said):
        assert told["type"] == "urn:rbee:problem:not-permitted"
        assert "this connection is only for the hive gpu1" in told["detail"]
    assert fleet.views()["gpu2"]["version"] == before


PACKAGES = "/usr/lib/python3/dist-packages"
APP = f"{PACKAGES}/rbee/hive/app.py"

LIE = """
import json
from starlette.responses import Response
from rbee.wire.codec import encode
def lie(answer):
    told = encode(answer)
    {lie}
    return Response(json.dumps(told), media_type="application/json")
"""

CARD = 'dict(index=0, vendor="nvidia", name=None, uuid=None, vram_bytes=None, driver=None, pci_address=None)'


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (f"told['gpus'] = [{CARD}] * 300", "gpus may have at most 256 entries"),
        (f"told['gpus'] = [{CARD}] * 50_000", "larger than 4194304 bytes"),
        ("told['findings'] = ['x' * 50_000_000]", "larger than 4194304 bytes"),
    ],
    ids=["300 GPUs", "50,000 GPUs", "50 MB"],
)
def test_what_a_hive_claims_is_bounded(fleet: Fleet, lie: str, words: str) -> None:
    queen, gpu1 = fleet.queen, fleet.hives["gpu1"]
    before = fleet.views()["gpu1"]
    put(gpu1, f"{PACKAGES}/lie.py", LIE.format(lie=lie))
    try:
        lying = "        return __import__('lie').lie(devices)\n        _ = "
        with altered(gpu1, APP, "        models, workers = ", lying):
            gpu1.run("systemctl", "restart", HIVE)
            added = rbeectl(queen, "add-hive", "gpu1", timeout=60)
            refused(added, 1, "the beehive gpu1 did not report its devices")
            assert words in added.err
            # It is asked again and again, and has this to say whenever it has answered.
            deadline = time.monotonic() + 30
            while words not in (shown := fleet.views()["gpu1"])["reason"]:
                assert time.monotonic() < deadline, shown
            # What is known of it is what was known, and why no more is.
            assert shown["devices"] == before["devices"]
            assert (shown["state"], words in shown["reason"]) == ("pending", True)
            assert fleet.states()["gpu2"] == "online"
    finally:
        gpu1.run("systemctl", "restart", HIVE)
    fleet.await_state("gpu1", "online")


def test_a_hive_of_another_queen_is_refused(fleet: Fleet, make_fleet: MakeFleet) -> None:
    other = make_fleet(queen=SUITES[0], hives=1)
    copied = other.hives["gpu1"].run("cat", MEMBERSHIP).stdout
    # It believes that its queen is here, and brings her certificate.
    with fleet.visit("gpu3") as gpu3:
        own = fleet.hives["gpu1"].run("cat", MEMBERSHIP).stdout.splitlines()[0]
        gpu3.run("install", "-d", "-o", "rbee-hive", "-g", "rbee-hive", "-m", "0700", "/var/lib/rbee-hive")
        mixed = "\n".join([own, *copied.splitlines()[1:], ""])
        gpu3.run("install", "-o", "rbee-hive", "-m", "0600", "/dev/stdin", MEMBERSHIP, input=mixed)
        gpu3.run("systemctl", "start", HIVE)
        is_told = f"systemctl show -P StatusText {HIVE} | grep -q 'does not know this hive'"
        gpu3.run("sh", "-c", f"until {is_told}; do sleep 0.05; done", timeout=15)


def test_refused_connections_are_no_end(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    before = len(fleet.told("hive-offline", hive="gpu1"))
    with rejected_with_reset(fleet.queen, port=PORT, peer=gpu1.address) as fault:
        fleet.await_told("hive-offline", hive="gpu1", count=before + 1)
        assert fault.packets > 0
    fleet.await_state("gpu1", "online")


def test_guessing_a_token_s_secret_gets_nowhere(fleet: Fleet) -> None:
    with fleet.visit("gpu3") as gpu3:
        token_id, _, fingerprint = fleet.token().split(".")
        guess = rbeectl(gpu3, "join", "queen", "--token", f"{token_id}.{'A' * 32}.{fingerprint}", user=None)
        refused(guess, 1, "this queen did not issue the token")
        # It is told, with where it came from.
        assert gpu3.address in fleet.told("join-refused")[-1]["MESSAGE"]


# What one machine may have her do and record


def test_a_stranger_s_joins_fill_nothing_and_an_operator_sees_how_many_they_were(fleet: Fleet) -> None:
    # An address of its own: of another's, refused joins have been counted before.
    with fleet.visit("stranger") as stranger:
        token_id, _, fingerprint = fleet.token().split(".")
        body = {
            "token": f"{token_id}.{'A' * 32}.{fingerprint}", "name": "stranger", "machine": "0" * 32,
            "request": "no request", "version": "0.5.0",
        }  # fmt: skip
        put(stranger, "/root/join.json", json.dumps(body))
        before = len(fleet.told("join-refused"))
        one = (
            "curl --silent --insecure --output /dev/null --write-out '%{http_code}\\n' "
            "--data @/root/join.json --header 'Content-Type: application/json' "
            f"https://queen:{PORT}{FleetRoutes.JOIN.path}"
        )
        many = f"for _ in $(seq 60); do {one}; done"
        statuses = stranger.run("sh", "-c", many, timeout=60).stdout.split()
        # The token is looked at first: of the request, which is none, nobody says a word.
        assert statuses[:20] == ["403"] * 20
        assert set(statuses[20:]) <= {"503", "403"}
        assert statuses.count("503") >= 30
        told = [entry["MESSAGE"] for entry in fleet.told("join-refused")][before:]
        assert len(told) == AT_ONCE
        assert all(stranger.address in text for text in told)
        # And a remote hive is not in its way, nor is what operators did gone.
        fleet.await_told("join-refused", count=before + AT_ONCE + 1, seconds=70)
        last = fleet.told("join-refused")[-1]["MESSAGE"]
        assert re.search(r"\(the same \d\d times more within 60 s\)$", last), last


def test_a_hive_that_dials_without_end_is_held_back_and_its_neighbour_is_not(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    entries = rbeectl(fleet.queen, "audit", "-n", "1000", "--json").json["entries"]
    gpu1.run("systemctl", "stop", HIVE)
    fleet.await_state("gpu1", "offline")
    path = UplinkRoutes.CONTROL.url()
    script = f"""
for number in $(seq 1 80); do
    curl --silent --insecure --max-time 0.2 --cert {MEMBERSHIP} --key {MEMBERSHIP} --output /dev/null \
        --write-out '%{{http_code}}\n' --header "RBEE-Instance: $(printf %032d $number)" \
        --header 'Connection: Upgrade' --header 'Upgrade: {PROTOCOL}' --http1.1 \
        --header 'RBEE-Version: {fleet.views()["gpu2"]["version"]}' https://queen:{PORT}{path}
done
true
"""
    statuses = gpu1.run("sh", "-c", script, timeout=120).stdout.split()
    assert statuses.count("503") > 20
    told = fleet.await_told("hive-restrained", hive="gpu1")
    assert "connects too often; its network may be unstable" in told["MESSAGE"]
    assert len(fleet.told("hive-restrained", hive="gpu1")) <= AT_ONCE
    assert fleet.states()["gpu2"] == "online"
    now = rbeectl(fleet.queen, "audit", "-n", "1000", "--json").json["entries"]
    assert len(now) - len(entries) < 50
    # In a while it is let in again.
    gpu1.run("systemctl", "start", HIVE)
    fleet.await_state("gpu1", "online", 60)


def test_a_hive_s_line_is_no_word_of_the_queen_s(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    before = len(fleet.told("hive-online", hive="gpu1"))
    imported = "from rbee.narration import DETECT_FAILED, DETECTED"
    other = "from rbee.narration import HIVE_ONLINE as DETECTED, DETECT_FAILED"
    try:
        with altered(gpu1, APP, imported, other):
            gpu1.run("systemctl", "restart", HIVE)
            fleet.await_told("hive-online", hive="gpu1", count=before + 1)
            _, kept = curl(fleet.queen, "/v1/events/last?limit=50&hive=gpu1")
            said = [
                (event["speaker"], event["event"]) for event in kept["events"] if "Detected" in event["text"]
            ]
            assert said[-1] == ("bee hive", "hive-said")
    finally:
        gpu1.run("systemctl", "restart", HIVE)
    fleet.await_state("gpu1", "online")
    assert all("Detected" not in entry["MESSAGE"] for entry in fleet.told("hive-online")[before:])


def test_a_weak_key_gets_no_certificate(fleet: Fleet) -> None:
    gpu1 = fleet.hives["gpu1"]
    gpu1.run("sh", "-c", "command -v openssl")
    for kind, words in (
        (("-newkey", "rsa:1024"), "an RSA key of 1024 bits"),
        (("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:secp224r1"), "a key on the curve secp224r1"),
    ):
        made = gpu1.run("openssl", "req", "-new", *kind, "-nodes", "-subj", "/", "-keyout", "/dev/null")
        body = json.dumps({"request": made.stdout})
        status, told = curl_as_hive(
            gpu1, FleetRoutes.RENEW.path, "-H", "Content-Type: application/json", "--data", body
        )
        assert (status, told["field"]) == ("400", "request"), told
        assert words in told["detail"]
