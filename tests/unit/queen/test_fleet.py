"""Who may be a remote hive: tokens, names, credentials, versions, marks, and who did what."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

import rbee.queen.fleet
import rbee.queen.hives.remote
from rbee import __version__, tls
from rbee.client.answers import read_answer
from rbee.errors import (
    BadInput,
    BadToken,
    ClonedHive,
    NameTaken,
    RbeeError,
    TcpClosed,
    TooMany,
    UnitFailed,
    UnknownHive,
    UnknownToken,
    VersionSkew,
    from_problem,
)
from rbee.narration import Event, Narrator
from rbee.queen.access import TcpAccess
from rbee.queen.authority import Authority, Identity
from rbee.queen.fleet import Fleet, check_version
from rbee.queen.hives.hives import Hives
from rbee.queen.hives.work import HiveWork
from rbee.queen.restraint import AT_ONCE, JOINS, RENEWALS, STREAMS
from rbee.queen.store import audit, tokens
from rbee.queen.store.records import now_ms
from rbee.queen.store.store import Store
from rbee.server.peer import RemotePeer
from rbee.uplink.accept import Uplink
from rbee.wire.catalog import Audit
from rbee.wire.codec import decode, encode
from rbee.wire.devices import Cpu, Devices
from rbee.wire.fleet import CreateToken, Join, Joined
from rbee.wire.hives import LABELS_MAX, AddHive, Heartbeat, Label, SetCordon, SetLabels
from rbee.wire.hives import Hives as Views
from rbee.wire.routes import QueenRoutes, Route
from tests.unit.played_hive import PlayedHive
from tests.unit.queens import a_queen as open_queen
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)

OPERATOR = {"actor_uid": "1000", "actor_pid": "42"}
MACHINE, OTHER = "a" * 32, "b" * 32
INSTANCE = "1" * 32


class Tape(Narrator):
    def __init__(self) -> None:
        self.told: list[tuple[str, str, dict[str, str]]] = []

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        self.told.append((event.name, text, fields))

    def of(self, name: str) -> list[str]:
        return [text for event, text, _ in self.told if event == name]


@dataclass
class Queen:
    access: TcpAccess
    fleet: Fleet
    hives: Hives
    work: HiveWork
    catalog: Store
    tape: Tape

    async def token(self, *, ttl_s: int = 3600, uses: int = 1, hive: str | None = None) -> str:
        return (await self.fleet.create_token(CreateToken(ttl_s, uses, hive), OPERATOR)).text

    async def join(
        self,
        token: str,
        name: str = "gpu1",
        *,
        machine: str = MACHINE,
        address: str = "10.0.0.1",
        version: str = __version__,
        credential: str | None = None,
        instance: str | None = None,
    ) -> Joined:
        request = tls.request_for(tls.new_key())
        asked = Join(token, name, machine, request, version)
        return await self.fleet.join(asked, RemotePeer(address, credential), instance)

    async def credential(self, name: str = "gpu1") -> RemotePeer:
        row = await self.catalog.hives.find(name)
        assert row is not None
        return RemotePeer(row.address or "", row.credential, row.id)

    async def member(self, name: str = "gpu1", **options: Any) -> RemotePeer:
        await self.join(await self.token(), name, **options)
        return await self.credential(name)


@asynccontextmanager
async def a_queen(folder: Path) -> AsyncIterator[Queen]:
    tape = Tape()
    async with open_queen(folder, tape) as queen:
        yield Queen(queen.access, queen.fleet, queen.hives, queen.work, queen.catalog, tape)


@pytest.fixture
@asynccontextmanager
async def queen(tmp_path: Path) -> AsyncIterator[Queen]:
    """A queen who is open."""
    async with a_queen(tmp_path / "state") as queen:
        await queen.access.set(True)
        yield queen


# Open or not


async def test_a_queen_who_was_never_opened_has_no_keys_and_makes_no_tokens(tmp_path: Path) -> None:
    async with a_queen(tmp_path / "state") as queen:
        with pytest.raises(TcpClosed) as caught:
            await queen.token()
        assert caught.value.hint == "rbeectl tcp enable"
        told = await queen.access.view()
        assert (told.is_open, told.listens, told.fingerprint, told.expires_ms) == (False, (), None, None)
        assert not (tmp_path / "state/tls").exists()
        assert not (tmp_path / "state/tcp").exists()


async def test_opening_makes_the_keys_and_the_mark_and_closing_keeps_the_keys(tmp_path: Path) -> None:
    async with a_queen(tmp_path / "state") as queen:
        opened = await queen.access.set(True)
        assert opened.is_open
        assert opened.fingerprint == queen.access.authority.fingerprint
        assert opened.expires_ms is not None
        assert (tmp_path / "state/tcp").exists()
        closed = await queen.access.set(False)
        assert (closed.is_open, closed.fingerprint) == (False, opened.fingerprint)
        assert not (tmp_path / "state/tcp").exists()
    # Tokens of an open queen are good for her after a restart: her keys are those of before.
    async with a_queen(tmp_path / "state") as again:
        assert again.access.authority.fingerprint == opened.fingerprint


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
        (f"{token_id}.{secret[::-1]}.{fingerprint}", "not one of this queen's"),
        (f"{'0' * 8}.{secret}.{fingerprint}", "not one of this queen's"),
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


ANSWERS = {
    "/health": b'{"status": "ok", "version": "1"}',
    "/v1/devices": json.dumps(encode(Devices(Cpu(None, None, None, None, None)))).encode(),
}


def answering(uplink: Uplink, *, status: int = 200, content: bytes | None = None) -> PlayedHive:
    """A hive that lives."""
    return PlayedHive(uplink, lambda method, path: (status, ANSWERS[path] if content is None else content))


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


async def test_a_hive_that_cannot_be_told_is_removed_only_by_force(queen: Queen) -> None:
    await queen.member()
    job = queen.work.remove("gpu1", OPERATOR)
    await until(lambda: job.view().state != "running")
    assert job.view().state == "error"
    assert [row.id for row in await queen.catalog.hives.all()] == ["gpu1"]


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
    moved = replace(peer, address="10.9.9.9")
    stream = await queen.fleet.connect(moved, INSTANCE, __version__)
    assert queen.hives.view("gpu1").address == "10.9.9.9"
    stream.abort()


async def test_the_end_of_a_stream_is_the_end_of_its_hive_and_a_goodbye_says_why(queen: Queen) -> None:
    peer = await queen.member()
    for states, reason in (
        (("ready",), "its connection closed"),
        (("ready", "stopping"), "stopped by an administrator"),
    ):
        stream = await queen.fleet.connect(peer, INSTANCE, __version__)
        holding = answering(stream)
        for state in states:
            await queen.hives.heartbeat(beat(state), peer.fields)
        await until(lambda: state_is(queen, "online"))
        holding.go()
        await until(lambda: state_is(queen, "offline"))
        assert queen.hives.view("gpu1").reason == reason


async def test_a_hive_that_went_before_it_was_asked_is_offline_and_stays_so(
    queen: Queen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.queen.hives.remote, "CONNECT_TIMEOUT", 0.05)

    peer = await queen.member()
    for _ in range(2):  # with the question to the first still under way
        stream = await queen.fleet.connect(peer, INSTANCE, __version__)
        await queen.hives.heartbeat(beat("ready"), peer.fields)
        stream.abort()
    await until(lambda: bool(queen.tape.of("add-failed")))
    view = queen.hives.view("gpu1")
    assert (view.state, view.reason) == ("offline", "its connection closed")


async def state_is(queen: Queen, state: str) -> bool:
    return queen.hives.view("gpu1").state == state


def beat(state: Any) -> Heartbeat:
    return Heartbeat(
        hive_id="gpu1", timestamp="2026-01-31T12:00:00Z", workers=(), instance=INSTANCE, state=state,
        version=__version__,
    )  # fmt: skip


# Tokens as they are kept


async def test_a_token_s_secret_is_in_no_file(queen: Queen, tmp_path: Path) -> None:
    secret = (await queen.token()).split(".")[1]
    await queen.catalog.check()
    for path in (tmp_path / "state").rglob("*"):
        assert path.is_dir() or secret.encode() not in path.read_bytes()


async def test_tokens_are_bounded_and_who_is_of_no_use_makes_room(
    queen: Queen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tokens, "TOKENS_MAX", 3)

    made = [await queen.token() for _ in range(3)]
    with pytest.raises(TooMany, match="there are 3 tokens") as caught:
        await queen.token()
    assert caught.value.hint == "rbeectl token revoke"
    await queen.catalog.tokens.revoke(made[1][:8], by=OPERATOR)
    last = await queen.token()
    kept = [token.id for token in await queen.catalog.tokens.all()]
    assert sorted(kept) == sorted(token[:8] for token in (made[0], made[2], last))
    with pytest.raises(UnknownToken):
        await queen.catalog.tokens.revoke(made[1][:8], by=OPERATOR)


# Marks, and who did what


async def test_labels_are_set_and_taken_away_and_are_no_more_than_there_may_be(queen: Queen) -> None:
    await queen.member()
    marks = SetLabels((Label("rack", "3"), Label("spare", "")))
    view = await queen.hives.hive("gpu1").standing.set_labels(marks, OPERATOR)
    assert view.labels == marks.set
    marks = SetLabels((Label("rack", "4"),), ("spare", "x"))
    view = await queen.hives.hive("gpu1").standing.set_labels(marks, OPERATOR)
    assert view.labels == (Label("rack", "4"),)
    many = SetLabels(tuple(Label(f"k{n}", "") for n in range(LABELS_MAX)))
    with pytest.raises(BadInput, match=f"at most {LABELS_MAX} labels"):
        await queen.hives.hive("gpu1").standing.set_labels(many, OPERATOR)
    assert queen.hives.view("gpu1").labels == view.labels
    with pytest.raises(UnknownHive):
        await queen.hives.hive("gpu9").standing.set_labels(marks, OPERATOR)


async def test_each_change_has_its_author_in_the_audit_and_in_the_journal(queen: Queen) -> None:
    peer = await queen.member()
    await queen.hives.hive("gpu1").standing.set_labels(SetLabels((Label("rack", "3"),)), OPERATOR)
    await queen.hives.hive("gpu1").standing.set_labels(
        SetLabels((Label("rack", "3"),)), OPERATOR
    )  # no change
    await queen.hives.hive("gpu1").standing.set_cordon(SetCordon("a fan is loud"), OPERATOR)
    await queen.hives.hive("gpu1").standing.set_cordon(SetCordon(None), OPERATOR)
    await queen.catalog.hives.set_status("gpu1", "online")  # who comes and goes is no deed
    await queen.catalog.hives.set_status("gpu1", "offline")
    entries = await queen.catalog.audit.last(100, None)
    told = [
        (entry.text.split(" with token")[0], entry.actor_uid, entry.actor_credential) for entry in entries
    ]
    assert told == [
        (f"token {entries[0].text[6:14]} was made, for 1 use", 1000, None),
        ("hive gpu1 joined from 10.0.0.1", None, peer.credential),
        ("the labels of hive gpu1 are rack=3", 1000, None),
        ("hive gpu1 is cordoned: a fan is loud", 1000, None),
        ("hive gpu1 is not cordoned any more", 1000, None),
    ]
    assert [entry.text for entry in await queen.catalog.audit.last(2, "gpu1")] == [
        text for text, *_ in told[-2:]
    ]
    assert await queen.catalog.audit.last(100, "GPU1") == await queen.catalog.audit.last(100, "gpu1")
    assert await queen.catalog.audit.last(100, "gpu9") == []


async def test_the_audit_is_bounded_and_the_oldest_go(queen: Queen, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "AUDIT_KEPT", 3)

    await queen.member()
    for number in range(5):
        await queen.hives.hive("gpu1").standing.set_cordon(SetCordon(f"reason {number}"), OPERATOR)
    joined, *told = [entry.text for entry in await queen.catalog.audit.last(100, None)]
    assert joined.startswith("hive gpu1 joined from 10.0.0.1")
    assert told == [f"hive gpu1 is cordoned: reason {number}" for number in (2, 3, 4)]


async def test_what_machines_do_pushes_nothing_of_an_operator_s_out_of_the_audit(
    queen: Queen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "AUDIT_KEPT_MACHINES", 6)
    monkeypatch.setattr(audit, "AUDIT_KEPT_A_HIVE", 4)

    liar = await queen.member()
    other = await queen.member("gpu2", machine=OTHER)
    await queen.hives.hive("gpu1").standing.set_cordon(SetCordon("broken"), OPERATOR)
    for number in range(20):
        await queen.catalog.hives.set_address("gpu1", f"10.0.1.{number}", liar.credential, by=liar.fields)
    await queen.catalog.hives.set_address("gpu2", "10.0.2.1", other.credential, by=other.fields)
    told = [entry.text for entry in await queen.catalog.audit.last(100, None)]
    operators = [text for text in told if ("token" in text and "was made" in text) or "cordoned" in text]
    assert len(operators) == 3
    # One hive has as many as it may, and another's are there beside it.
    assert [text for text in told if "10.0.1." in text] == [
        f"hive gpu1 is at 10.0.1.{number}" for number in (16, 17, 18, 19)
    ]
    assert any(text.startswith("hive gpu2 joined") for text in told)
    assert told[-1] == "hive gpu2 is at 10.0.2.1"


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
    assert told[0].startswith("the beehive gpu1 connects more often than it is let in")


async def test_a_hive_gets_no_certificates_without_end(queen: Queen) -> None:
    peer = await queen.member()
    request = tls.request_for(tls.new_key())
    for _ in range(RENEWALS.burst):
        await queen.fleet.renew(request, peer)
    with pytest.raises(TooMany):
        await queen.fleet.renew(request, peer)


def test_a_new_hive_s_name_is_one_that_a_table_can_show() -> None:
    decode(Join, encode(Join("t", "x" * 63, MACHINE, "r", "1.0")))
    for shape in (Join("t", "x" * 64, MACHINE, "r", "1.0"), CreateToken(hive="x" * 64)):
        with pytest.raises(BadInput, match="must have 1 to 63 characters"):
            decode(type(shape), encode(shape))


# What a hive says, and what an operator may write, never keeps others from reading


def as_the_keeper_reads(route: Route, shape: Any) -> None:
    """As JSON goes through the keeper's checks."""
    read_answer(route, json.dumps(encode(shape)).encode(), 200)


async def test_a_hive_of_a_long_version_or_problem_does_not_break_the_list_of_all(queen: Queen) -> None:
    peer = await queen.member()
    with pytest.raises(VersionSkew):
        await queen.fleet.connect(peer, INSTANCE, "9" * 2000)
    as_the_keeper_reads(QueenRoutes.HIVES, Views(tuple(queen.hives.views())))

    stream = await queen.fleet.connect(peer, INSTANCE, __version__)
    problem = json.dumps({"detail": "y" * 100_000}).encode()
    lying = answering(stream, status=502, content=problem)
    await queen.hives.heartbeat(beat("ready"), peer.fields)
    await until(lambda: bool(queen.tape.of("add-failed")))
    as_the_keeper_reads(QueenRoutes.HIVES, Views(tuple(queen.hives.views())))
    lying.go()


async def test_the_longest_marks_that_may_be_do_not_break_the_audit(queen: Queen) -> None:
    await queen.member()
    await queen.hives.hive("gpu1").standing.set_cordon(SetCordon("x" * 2000), OPERATOR)
    labels = tuple(Label(f"k{number:02}{'a' * 60}", "v" * 63) for number in range(LABELS_MAX))
    await queen.hives.hive("gpu1").standing.set_labels(SetLabels(labels), OPERATOR)
    as_the_keeper_reads(QueenRoutes.AUDIT, Audit(tuple(await queen.catalog.audit.last(100, None))))


async def test_of_two_joins_at_once_one_credential_is_left(queen: Queen) -> None:
    token = await queen.token(uses=2)
    await asyncio.gather(queen.join(token), queen.join(token))
    row = await queen.catalog.hives.find("gpu1")
    assert row is not None
    await queen.fleet.connect(await queen.credential(), INSTANCE, __version__)
    assert queen.fleet._members == {row.credential: "gpu1"}


async def test_a_shutdown_that_failed_tells_the_hives_again_when_it_is_asked_again(
    queen: Queen, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(unit: str) -> None:
        raise UnitFailed("systemd would not")

    peer = await queen.member()
    monkeypatch.setattr(queen.hives._bus, "ask_stop", fail)
    for number in (1, 2):
        stream = await queen.fleet.connect(peer, INSTANCE, __version__)
        taking = answering(stream, status=202, content=b'{"status": "stopping"}')
        job = queen.work.shut_down(OPERATOR)
        await until(lambda job=job: job.view().state != "running")
        assert queen.tape.of("hive-told") == ["the beehive gpu1 is shutting down"] * number
        taking.go()


# Adding one that the queen has refused


async def add_fails(queen: Queen, name: str = "gpu1") -> RbeeError:
    """How adding ends, which it does at once."""
    job = queen.work.add(AddHive(name, None), OPERATOR)
    *_, last = [chunk async for chunk in job.follow(0)]
    event, _, data = last.decode().partition("\ndata: ")
    assert "event: error" in event
    return from_problem(json.loads(data))


async def dials(queen: Queen, peer: RemotePeer, version: str = __version__) -> None:
    with suppress(RbeeError):
        await queen.fleet.connect(peer, INSTANCE, version)


async def test_a_version_too_far_off_ends_the_wait_for_a_hive(queen: Queen) -> None:
    peer = await queen.member()
    adding = asyncio.create_task(add_fails(queen))
    await until(lambda: queen.hives.hive("gpu1").arrival is not None)
    await dials(queen, peer, "0.1.0")

    error = await adding
    assert isinstance(error, VersionSkew)
    assert "the beehive gpu1 has version 0.1.0" in error.message
    assert (error.hint or "").startswith("On gpu1: ")


async def test_a_credential_that_is_not_in_the_catalog_ends_the_wait_and_is_the_reason(queen: Queen) -> None:
    await queen.member()
    adding = asyncio.create_task(add_fails(queen))
    await until(lambda: queen.hives.hive("gpu1").arrival is not None)
    await dials(queen, RemotePeer("10.0.0.1", "of before", "gpu1"))

    error = await adding
    assert isinstance(error, UnknownHive)
    assert "gpu1 comes from 10.0.0.1 with a credential that is not in the hive catalog" in error.message
    assert error.hint == "rbeectl add-hive gpu1"
    view = queen.hives.view("gpu1")
    assert (view.state, view.reason) == ("offline", error.message)


async def test_another_s_credential_changes_nothing_about_a_hive_that_is_connected(queen: Queen) -> None:
    peer = await queen.member()
    await queen.fleet.connect(peer, INSTANCE, __version__)
    before = queen.hives.view("gpu1")
    await dials(queen, RemotePeer("10.0.0.9", "of before", "gpu1"))
    assert queen.hives.view("gpu1") == before
    # Nor is a name made known that the catalog does not have.
    await dials(queen, RemotePeer("10.0.0.9", "of before", "gpu9"))
    assert [view.id for view in queen.hives.views()] == ["gpu1"]


async def test_a_refusal_of_before_ends_the_wait_soon_and_not_at_once(
    queen: Queen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.queen.hives.remote, "REFUSED_TIMEOUT", 0.05)
    peer = await queen.member()
    await dials(queen, peer, "0.1.0")
    assert isinstance(await add_fails(queen), VersionSkew)
    # It may have been mended meanwhile, and comes.
    monkeypatch.setattr(rbee.queen.hives.remote, "REFUSED_TIMEOUT", 5)
    job = queen.work.add(AddHive("gpu1", None), OPERATOR)
    await until(lambda: queen.hives.hive("gpu1").arrival is not None)
    await queen.fleet.connect(peer, INSTANCE, __version__)
    await asyncio.sleep(0.1)
    assert job.state == "running"


async def test_a_hive_that_does_not_dial_is_said_not_to(
    queen: Queen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.queen.hives.remote, "DIAL_TIMEOUT", 0.05)
    await queen.member()
    error = await add_fails(queen)
    assert error.message == "the beehive gpu1 has not connected within 0.05 s"
