"""Who may be a remote hive: by which token, name, credential and version."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

import rbee.queen.fleet
from rbee import __version__, tls
from rbee.errors import BadInput, BadToken, ClonedHive, NameTaken, TooMany, UnknownHive, VersionSkew
from rbee.queen.authority import Authority, Identity
from rbee.queen.fleet import check_version
from rbee.queen.restraint import AT_ONCE, JOINS, RENEWALS, STREAMS
from rbee.queen.store.records import now_ms
from rbee.server.peer import RemotePeer
from tests.unit.queen.joined import INSTANCE, MACHINE, OPERATOR, OTHER, Queen, a_queen, answering, beat
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)


# Joining


async def test_a_machine_joins_with_a_token_and_is_known_by_its_credential(queen: Queen) -> None:
    joined = await queen.join(await queen.token())
    assert joined.hive_id == "gpu1"
    peer = await queen.credential()
    assert queen.fleet.hive_of(peer) == "gpu1"
    assert queen.fleet.is_member("gpu1")
    view = queen.hives.view("gpu1")
    assert (view.state, view.is_remote, view.address) == ("pending", True, "10.0.0.1")
    assert queen.tape.of("hive-joined") == ["the beehive gpu1 has joined from 10.0.0.1"]


async def test_who_joined_is_known_after_a_restart(tmp_path: Path) -> None:
    async with a_queen(tmp_path / "state") as queen:
        await queen.access.set(True)
        peer = await queen.member()
    async with a_queen(tmp_path / "state") as again:
        assert again.fleet.hive_of(peer) == "gpu1"
        assert again.hives.view("gpu1").state == "unknown"


async def test_a_token_that_is_not_good_lets_nobody_in_and_says_why(
    queen: Queen, monkeypatch: pytest.MonkeyPatch
) -> None:
    spent = await queen.token()
    await queen.join(spent, "gpu0", machine=OTHER)
    revoked = await queen.token()
    await queen.catalog.tokens.revoke(revoked[:8], by=OPERATOR)
    bound = await queen.token(hive="gpu7")
    token_id, secret, fingerprint = (await queen.token()).split(".")
    expired = await queen.token(ttl_s=1)
    later = now_ms() + 1001
    tries = [
        (spent, "is spent"),
        (revoked, "has been revoked"),
        (bound, "is for the hive gpu7"),
        (f"{token_id}.{secret[::-1]}.{fingerprint}", "this queen did not issue the token"),
        (f"{'0' * 8}.{secret}.{fingerprint}", "this queen did not issue the token"),
        (f"{token_id}.{secret}.{'0' * 64}", "is another queen's"),
        (expired, "has expired"),
    ]
    for number, (token, words) in enumerate(tries):
        if token is expired:
            monkeypatch.setattr(queen.catalog.writer, "now_ms", lambda: later)
        with pytest.raises(BadToken, match=words) as caught:
            await queen.join(token, address=f"10.0.0.{number}")
        assert "rbeectl token create" in (caught.value.hint or "")
    assert [row.id for row in await queen.catalog.hives.all()] == ["gpu0"]
    refused = queen.tape.of("join-refused")
    assert len(refused) == len(tries)
    for number, text in enumerate(refused):
        assert text.startswith(f"10.0.0.{number} may not join as gpu1: ")
    # No secret is in what was told.
    for token, _ in tries:
        assert token.split(".")[1] not in str(queen.tape.told)


async def test_a_token_is_for_as_many_as_it_says(queen: Queen) -> None:
    token = await queen.token(uses=2)
    for number in range(2):
        await queen.join(token, f"gpu{number}", machine=f"{number}" * 32)
    with pytest.raises(BadToken, match="is spent"):
        await queen.join(token, "gpu2", machine="2" * 32)


async def test_a_name_is_one_machine_s_and_a_machine_has_one_name(queen: Queen) -> None:
    first = await queen.member()
    token = await queen.token()
    with pytest.raises(NameTaken, match=r"gpu1 is taken by the hive at 10\.0\.0\.1"):
        await queen.join(token, machine=OTHER)
    with pytest.raises(NameTaken, match="this machine is the hive gpu1 already"):
        await queen.join(token, "gpu2")
    with pytest.raises(BadInput, match="must not be localhost"):
        await queen.join(token, "localhost", machine=OTHER)
    assert queen.fleet.hive_of(first) == "gpu1"
    # What was refused has spent nothing.
    await queen.join(token, "gpu2", machine=OTHER)


async def test_names_that_differ_by_case_alone_are_one(queen: Queen) -> None:
    await queen.member("GPU1")
    with pytest.raises(NameTaken, match=r"the name GPU1 is taken by the hive at 10\.0\.0\.1"):
        await queen.join(await queen.token(), "gpu1", machine=OTHER)
    # The machine whose name it is keeps its spelling, and a token may have another.
    assert (await queen.join(await queen.token(hive="gpu1"), "gpU1")).hive_id == "GPU1"
    assert [row.id for row in await queen.catalog.hives.all()] == ["GPU1"]
    with pytest.raises(BadToken, match="is for the hive gpu1"):
        await queen.join(await queen.token(hive="gpu1"), "gpu2", machine=OTHER)


async def test_two_that_join_at_once_as_one_name_in_two_cases_are_not_both_taken(queen: Queen) -> None:
    token = await queen.token(uses=2)
    joining = (queen.join(token, "GPU1"), queen.join(token, "gpu1", machine=OTHER))
    ended = await asyncio.gather(*joining, return_exceptions=True)
    assert [type(end) for end in ended].count(NameTaken) == 1
    assert len(await queen.catalog.hives.all()) == 1


async def test_two_of_before_that_differ_by_case_alone_stay_two(queen: Queen, tmp_path: Path) -> None:
    await queen.member("GPU1")
    await queen.member("gpu2", machine=OTHER)
    # As a catalog of 0.4.0 may have them.
    with closing(sqlite3.connect(tmp_path / "state/catalog.db")) as connection, connection:
        connection.execute("UPDATE hives SET id = 'gpu1', host = 'gpu1' WHERE id = 'gpu2'")
    await queen.hives.load()
    for name, machine in (("GPU1", MACHINE), ("gpu1", OTHER)):
        assert (await queen.join(await queen.token(), name, machine=machine)).hive_id == name
        assert queen.hives.view(queen.hives.spelled(name)).id == name


@pytest.mark.parametrize("name", ["localhost", "LocalHost"])
async def test_the_name_of_the_queen_s_own_hive_is_not_to_be_had(queen: Queen, name: str) -> None:
    with pytest.raises(BadInput, match="must not be localhost"):
        await queen.token(hive=name)
    with pytest.raises(BadInput, match="must not be localhost"):
        await queen.join(await queen.token(), name)


async def test_joining_anew_ends_the_credential_of_before_once_the_new_one_is_used(queen: Queen) -> None:
    first = await queen.member()
    second = await queen.member(address="10.0.0.9")
    assert second.credential != first.credential
    assert queen.hives.view("gpu1").address == "10.0.0.9"
    await queen.fleet.connect(second, INSTANCE, __version__)
    assert queen.fleet.hive_of(second) == "gpu1"
    with pytest.raises(UnknownHive, match="joined anew under another credential"):
        queen.fleet.hive_of(first)


async def test_a_hive_that_never_learns_of_its_new_credential_goes_on_with_the_one_it_has(
    tmp_path: Path,
) -> None:
    async with a_queen(tmp_path / "state") as queen:
        await queen.access.set(True)
        used = await queen.member()
        for _ in range(2):  # neither answer arrives
            await queen.member()
        await queen.fleet.connect(used, INSTANCE, __version__)
    # Nor does it matter that the queen ends in between.
    async with a_queen(tmp_path / "state") as again:
        await again.fleet.connect(used, INSTANCE, __version__)
        last = await again.credential()
        assert set(again.fleet._members) == {used.credential, last.credential}
        again.hives.uplinks.drop("gpu1")
        await again.fleet.connect(last, INSTANCE, __version__)
        assert set(again.fleet._members) == {last.credential}


async def test_of_two_joins_at_once_one_credential_is_left(queen: Queen) -> None:
    token = await queen.token(uses=2)
    await asyncio.gather(queen.join(token), queen.join(token))
    row = await queen.catalog.hives.find("gpu1")
    assert row is not None
    await queen.fleet.connect(await queen.credential(), INSTANCE, __version__)
    assert queen.fleet._members == {row.credential: "gpu1"}


async def test_who_lives_is_not_replaced_by_a_copy_that_joins_and_both_are_named(queen: Queen) -> None:
    peer = await queen.member()
    stream = await queen.fleet.connect(peer, INSTANCE, __version__)
    holding = answering(stream)
    token = await queen.token()
    with pytest.raises(ClonedHive, match=r"gpu1 is connected from 10\.0\.0\.1 already, .* from 10\.0\.0\.2"):
        await queen.join(token, address="10.0.0.2")
    assert len(queen.tape.of("hive-cloned")) == 1
    assert queen.fleet.hive_of(peer) == "gpu1"
    # With a token that is not good nothing is said of who lives here.
    token_id, secret, fingerprint = token.split(".")
    with pytest.raises(BadToken):
        await queen.join(f"{token_id}.{secret[::-1]}.{fingerprint}", address="10.0.0.2")
    holding.go()
    await queen.join(token, address="10.0.0.2")


@pytest.mark.parametrize(
    ("shows_credential", "instance", "is_itself"),
    [(True, INSTANCE, True), (False, INSTANCE, False), (True, "9" * 32, False), (True, None, False)],
)
async def test_a_hive_that_lives_joins_anew_where_it_shows_that_it_is_no_copy(
    queen: Queen, shows_credential: bool, instance: str | None, is_itself: bool
) -> None:
    peer = await queen.member()
    stream = await queen.fleet.connect(peer, INSTANCE, __version__)
    holding = answering(stream)
    credential = peer.credential if shows_credential else None
    try:
        await queen.join(await queen.token(), credential=credential, instance=instance)
    except ClonedHive:
        assert not is_itself
    else:
        assert is_itself
        assert (await queen.credential()).credential != peer.credential
    assert len(queen.tape.of("hive-cloned")) == (not is_itself)
    holding.go()


async def test_a_plain_beat_is_answered_at_once_for_the_hive_of_that_connection(queen: Queen) -> None:
    peer = await queen.member()
    uplink = await queen.fleet.connect(peer, INSTANCE, __version__)
    holding = answering(uplink)
    assert queen.fleet._plain(peer, INSTANCE, beat("ready")) is None  # it is not online yet
    uplink.received(beat("ready"))
    await until(lambda: queen.hives.view("gpu1").state == "online")

    assert queen.fleet._plain(peer, INSTANCE, beat("ready")) is not None
    assert queen.fleet._plain(peer, "9" * 32, beat("ready")) is None
    assert queen.fleet._plain(peer._replace(credential="another"), INSTANCE, beat("ready")) is None
    assert queen.fleet._plain(peer, INSTANCE, beat("ready")._replace(hive_id="gpu2")) is None
    assert queen.fleet._plain(peer, INSTANCE, beat("ready")._replace(instance="9" * 32)) is None
    holding.go()


async def test_a_removed_hive_is_told_so_whatever_its_certificate_says(queen: Queen) -> None:
    peer = await queen.member()
    job = queen.work.remove("gpu1", OPERATOR, is_forced=True)
    await until(lambda: job.view().state != "running")
    assert await queen.catalog.hives.all() == []
    for asking in (
        queen.fleet.renew(tls.request_for(tls.new_key()), peer),
        queen.fleet.connect(peer, INSTANCE, __version__),
    ):
        with pytest.raises(UnknownHive, match="removed") as caught:
            await asking
        assert "rbeectl join" in (caught.value.hint or "")
    with pytest.raises(UnknownHive):
        queen.fleet.hive_of(RemotePeer("10.0.0.1", None))


async def test_another_certificate_is_for_the_same_credential(queen: Queen) -> None:
    peer = await queen.member()
    renewed = await queen.fleet.renew(tls.request_for(tls.new_key()), peer)
    subject = x509.load_pem_x509_certificate(renewed.certificate.encode()).subject
    (number,) = subject.get_attributes_for_oid(NameOID.SERIAL_NUMBER)
    assert (renewed.hive_id, number.value) == ("gpu1", peer.credential)


# Versions


@pytest.mark.parametrize("version", ["1.4.0", "1.4.9", "1.3.0", "1.5.7", "1.4.0~rc1", "1.5"])
def test_one_minor_version_apart_is_near_enough(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(rbee.queen.fleet, "__version__", "1.4.2")

    check_version(version, "gpu1")


@pytest.mark.parametrize(
    ("version", "machine", "package"),
    [
        ("1.2.9", "gpu1", "rbee-hive"),
        ("0.4.0", "gpu1", "rbee-hive"),
        ("", "gpu1", "rbee-hive"),
        ("1.40.0", "the queen's machine", "rbee-queen"),
        ("1.6.0", "the queen's machine", "rbee-queen"),
        ("2.4.0", "the queen's machine", "rbee-queen"),
    ],
)
def test_farther_apart_is_refused_with_the_line_that_mends_it(
    monkeypatch: pytest.MonkeyPatch, version: str, machine: str, package: str
) -> None:
    monkeypatch.setattr(rbee.queen.fleet, "__version__", "1.4.2")

    with pytest.raises(
        VersionSkew, match=f"has version {version or 'unknown'}, and the queen 1.4.2"
    ) as caught:
        check_version(version, "gpu1")
    debs = f"./python3-rbee_*.deb ./{package}_*.deb ./rbeectl_*.deb"
    assert caught.value.hint == f"On {machine}: sudo apt install {debs}"
    assert caught.value.message.endswith(f"{package} on {machine} is the older")


async def test_a_hive_that_is_too_far_apart_is_offline_for_that_reason(queen: Queen) -> None:
    peer = await queen.member()
    for version in ("99.0.0", "98.0.0"):
        with pytest.raises(VersionSkew):
            await queen.fleet.connect(peer, INSTANCE, version)
        view = queen.hives.view("gpu1")
        assert view.state == "offline"
        assert view.reason.startswith(f"the beehive gpu1 has version {version}")
    assert queen.hives.uplinks.find("gpu1") is None


async def test_a_hive_that_connects_as_before_is_told_to_be_upgraded_and_so_is_the_operator(
    queen: Queen,
) -> None:
    error = await queen.fleet.refuse_older(await queen.member(), "0.4.0")
    assert error.message.startswith(
        "the beehive gpu1 has version 0.4.0, and cannot connect to a queen of version"
    )
    assert "./rbee-hive_*.deb" in (error.hint or "")
    assert queen.hives.view("gpu1").reason == error.message


# Connections


async def test_a_hive_that_comes_from_elsewhere_is_at_its_new_address(queen: Queen) -> None:
    peer = await queen.member()
    moved = peer._replace(address="10.9.9.9")
    stream = await queen.fleet.connect(moved, INSTANCE, __version__)
    assert queen.hives.view("gpu1").address == "10.9.9.9"
    stream.abort()


# Limits


async def test_a_request_is_not_looked_at_before_the_token_is(
    queen: Queen, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed: list[str] = []
    sign = Authority.sign

    def counted(self: Authority, request: str, identity: Identity) -> str:
        signed.append(identity.hive_id)
        return sign(self, request, identity)

    monkeypatch.setattr(Authority, "sign", counted)

    token = await queen.token()
    token_id, _, fingerprint = token.split(".")
    with pytest.raises(BadToken):
        await queen.join(f"{token_id}.{'A' * 32}.{fingerprint}")
    assert signed == []
    await queen.join(token)
    assert signed == ["gpu1"]


async def test_an_address_whose_joins_are_refused_is_not_listened_to_and_others_are(queen: Queen) -> None:
    token = await queen.token()
    stranger, friend = RemotePeer("10.0.0.66", None), RemotePeer("10.0.0.1", None)
    for _ in range(JOINS.burst):
        queen.fleet.check_joins(stranger)
        queen.fleet.join_failed(stranger)
    for _ in range(1000):
        with pytest.raises(TooMany, match=r"too many joins from 10\.0\.0\.66"):
            queen.fleet.check_joins(stranger)
    queen.fleet.check_joins(friend)
    await queen.join(token)
    # What the operator sees of a thousand is a handful.
    assert 0 < len(queen.tape.of("join-refused")) <= AT_ONCE


async def test_a_hive_that_connects_without_end_is_held_back(queen: Queen) -> None:
    peer = await queen.member()
    for number in range(STREAMS.burst):
        uplink = await queen.fleet.connect(peer, f"{number:032}", __version__)
        uplink.abort()
    for _ in range(50):
        with pytest.raises(TooMany, match="the beehive gpu1 connects too often"):
            await queen.fleet.connect(peer, INSTANCE, __version__)
    told = queen.tape.of("hive-restrained")
    assert len(told) == AT_ONCE
    assert told[0].startswith("the beehive gpu1 connects too often; its network may be unstable")


async def test_a_hive_gets_no_certificates_without_end(queen: Queen) -> None:
    peer = await queen.member()
    request = tls.request_for(tls.new_key())
    for _ in range(RENEWALS.burst):
        await queen.fleet.renew(request, peer)
    with pytest.raises(TooMany):
        await queen.fleet.renew(request, peer)
