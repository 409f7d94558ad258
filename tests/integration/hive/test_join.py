"""Taking up an invitation of a remote queen, over TLS, and what keeps a hive from joining."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
from contextlib import closing
from pathlib import Path
from shutil import which
from types import SimpleNamespace

import pytest

import rbee.files
import rbee.hive.join
from rbee import __version__, tls
from rbee.client.link import Link
from rbee.errors import BadConfig, BadInput, BadToken, NotRunning, RbeeError, UnknownHive, WrongQueen
from rbee.hive.join import APPLICATION, Guest, own_name
from rbee.narration import Journal
from rbee.queen.authority import Authority
from rbee.scope import SYSTEM
from rbee.systemd.daemon import Notifier
from rbee.wire.routes import FleetRoutes
from tests.integration.hive.joining import (
    APP_SPECIFIC,
    MACHINE_ID,
    SECRET,
    Hive,
    Queen,
    ServeQueens,
    block,
    kept,
    two_queens,
)
from tests.integration.remote_queen import HERE, unheard_port

pytestmark = pytest.mark.deadline(10)

# Joining


async def test_an_invitation_is_taken_up_once_and_what_came_of_it_is_kept(
    queen: Queen, hive: Hive, serve_queens: ServeQueens
) -> None:
    async with serve_queens(queen) as (port,):
        joined, again = await hive.join(queen, port), await hive.guest.take_up_invitation()

    assert again is None
    assert not hive.invitation.exists()
    assert (joined.hive_id, joined.host, joined.ca) == ("gpu1", HERE, queen.authority.ca)
    assert hive.memberships.load() == joined
    # The last is the proof: by the credential that it has now.
    assert queen.seen == [("/v1/ca", None), ("/v1/join", None), ("/v1/renew", "c" * 32)]


async def test_without_an_invitation_nobody_is_asked(hive: Hive) -> None:
    assert await hive.guest.take_up_invitation() is None
    assert hive.memberships.load() is None


async def test_a_join_shows_token_name_version_and_machine_but_not_the_machine_s_own_id(
    queen: Queen, hive: Hive, serve_queens: ServeQueens
) -> None:
    async with serve_queens(queen) as (port,):
        await hive.join(queen, port)

    (join,) = queen.joins
    assert (join.token, join.name, join.version) == (queen.token, "gpu1", __version__)
    assert join.machine == APP_SPECIFIC
    assert MACHINE_ID not in json.dumps([join.request, join.machine])


async def test_a_hive_that_is_given_no_name_has_that_of_its_machine_up_to_the_first_dot(
    queen: Queen, hive: Hive, serve_queens: ServeQueens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.hive.join, "socket", SimpleNamespace(gethostname=lambda: "rack3.lab.example"))

    async with serve_queens(queen) as (port,):
        hive.invite(port, queen.token, name=None)
        assert (await hive.guest.take_up_invitation()).hive_id == "rack3"
    assert own_name() == "rack3"


async def test_the_credential_is_shown_to_her_and_not_to_her_as_a_stranger(
    queen: Queen, hive: Hive, serve_queens: ServeQueens
) -> None:
    async with serve_queens(queen) as (port,):
        membership = await hive.join(queen, port)
        queen.seen.clear()
        for place in (membership.queen(), membership.queen_to_strangers()):
            link = Link(place, timeout=5)
            try:
                await link.ask(FleetRoutes.CA)
            finally:
                await link.close()
    assert queen.seen == [("/v1/ca", "c" * 32), ("/v1/ca", None)]


@pytest.mark.parametrize("umask", [0o000, 0o027], ids=oct)
async def test_the_membership_is_its_owner_s_alone_whatever_the_umask(
    queen: Queen, hive: Hive, serve_queens: ServeQueens, umask: int
) -> None:
    async with serve_queens(queen) as (port,):
        queen.authority.context()
        before = os.umask(umask)
        try:
            await hive.join(queen, port)
        finally:
            os.umask(before)
    assert hive.path.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in hive.folder.iterdir()) == ["machine-id", "membership"]


# What keeps it from joining


async def failing(serve_queens: ServeQueens, hive: Hive, queen: Queen, token: str) -> RbeeError:
    """How joining this queen with this token fails."""

    async with serve_queens(queen) as (port,):
        hive.invite(port, token)
        with pytest.raises(RbeeError) as caught:
            await hive.guest.take_up_invitation()
        return caught.value


async def test_a_refused_invitation_is_gone_and_no_membership_is_left(
    queen: Queen, hive: Hive, serve_queens: ServeQueens
) -> None:
    queen.refusal = BadToken("the token is spent", hint="rbeectl token create")

    error = await failing(serve_queens, hive, queen, queen.token)

    assert (type(error), error.message, error.hint) == (
        BadToken,
        "the token is spent",
        "rbeectl token create",
    )
    assert [path.name for path in hive.folder.iterdir()] == ["machine-id"]


async def test_an_invitation_to_where_nobody_listens_is_gone_too(queen: Queen, hive: Hive) -> None:
    async def scenario() -> None:
        with unheard_port() as port:
            hive.invite(port, queen.token)
            await hive.guest.take_up_invitation()

    with pytest.raises(NotRunning):
        await scenario()
    assert not hive.invitation.exists()


async def test_to_a_queen_with_another_fingerprint_no_token_is_shown(
    queen: Queen, hive: Hive, serve_queens: ServeQueens, tmp_path: Path
) -> None:
    other = Authority.open(tmp_path / "other")

    error = await failing(serve_queens, hive, queen, tls.token_text("0" * 8, SECRET, other.fingerprint))

    assert type(error) is WrongQueen
    assert "is not the queen that the token is from" in error.message
    assert [path for path, _ in queen.seen] == ["/v1/ca"]
    assert not hive.invitation.exists()


@pytest.mark.parametrize(
    "shown",
    [
        "",
        "no certificate\n",
        "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n",
    ],
)
async def test_to_who_has_no_certificate_to_show_no_token_is_shown(
    queen: Queen, hive: Hive, serve_queens: ServeQueens, shown: str
) -> None:
    queen.shows = shown

    assert type(await failing(serve_queens, hive, queen, queen.token)) is WrongQueen
    assert [path for path, _ in queen.seen] == ["/v1/ca"]


async def test_to_who_shows_her_certificate_and_has_not_her_key_no_token_is_shown(
    queen: Queen, hive: Hive, serve_queens: ServeQueens, tmp_path: Path
) -> None:
    between = Queen(tmp_path / "between", shows=queen.authority.ca)

    error = await failing(serve_queens, hive, between, queen.token)

    assert type(error) is WrongQueen
    assert [path for path, _ in between.seen] == ["/v1/ca"]


async def test_a_token_that_is_none_is_never_repeated_and_nobody_is_asked(
    queen: Queen, hive: Hive, serve_queens: ServeQueens
) -> None:
    error = await failing(serve_queens, hive, queen, "hunter2")

    assert type(error) is BadInput
    assert error.field == "token"
    assert "hunter2" not in error.message + (error.hint or "")
    assert queen.seen == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"[]",
        b"{",
        b'{"host": "queen", "token": "x"}',
        b'{"host": "-oProxyCommand=x", "port": 8500, "token": "x"}',
        b'{"host": "queen", "port": 0, "token": "x"}',
        b'{"host": "queen", "port": 8500, "token": ""}',
        b'{"host": "queen", "port": 8500, "token": "x", "name": "a b"}',
    ],
)
async def test_what_is_no_invitation_is_named_with_the_cure_and_is_gone(hive: Hive, content: bytes) -> None:
    hive.invitation.write_bytes(content)

    with pytest.raises(BadConfig, match="invitation is not a valid invitation") as caught:
        await hive.guest.take_up_invitation()

    assert caught.value.hint == SYSTEM.rejoin
    assert not hive.invitation.exists()


@pytest.mark.parametrize("machine_id", ["", "uninitialized\n", "0" * 31, f"{MACHINE_ID[:-1]}G"])
async def test_a_machine_without_an_id_shows_no_token_and_says_how_to_get_one(
    queen: Queen, hive: Hive, serve_queens: ServeQueens, machine_id: str
) -> None:
    hive.machine_id.write_text(machine_id)

    error = await failing(serve_queens, hive, queen, queen.token)

    assert (type(error), error.hint) == (BadConfig, "sudo systemd-machine-id-setup")
    assert queen.joins == []


async def test_joining_another_queen_in_vain_leaves_the_membership_as_it_was(
    queen: Queen, hive: Hive, serve_queens: ServeQueens, tmp_path: Path
) -> None:
    other = Queen(tmp_path / "other")
    other.refusal = BadToken("the token has expired")

    assert hive.path.exists() is False
    async with serve_queens(queen, other) as (port, other_port):
        await hive.join(queen, port)
        before = hive.path.read_text()
        hive.invite(other_port, other.token)
        with pytest.raises(BadToken):
            await hive.guest.take_up_invitation()
    assert hive.path.read_text() == before


# Joining the same queen again


async def test_a_hive_that_joins_its_queen_anew_shows_that_it_is_no_copy(
    queen: Queen, hive: Hive, serve_queens: ServeQueens
) -> None:
    hive.instance = "1" * 32
    await two_queens(hive, queen, queen, serve_queens)

    joins = [credential for path, credential in queen.seen if path == "/v1/join"]
    assert joins == [None, "c" * 32]
    assert queen.instances == [None, "1" * 32]


async def test_a_join_anew_that_is_told_to_stop_once_the_queen_has_the_token_is_finished(
    queen: Queen, hive: Hive, serve_queens: ServeQueens
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    async with serve_queens(queen) as (port,):
        await hive.join(queen, port)
        queen.when_joined = lambda: os.kill(os.getpid(), signal.SIGTERM)
        await hive.join(queen, port)

    assert hive.memberships.has_new()
    assert signal.getsignal(signal.SIGTERM) is before


async def test_a_queen_who_does_not_answer_to_the_new_credential_changes_nothing(
    queen: Queen, other: Queen, hive: Hive, serve_queens: ServeQueens
) -> None:
    async with serve_queens(queen, other) as (port, other_port):
        await hive.join(queen, port)
        before = hive.path.read_text()
        other.renew_refusal = UnknownHive("this machine was removed")
        with pytest.raises(UnknownHive):
            await hive.join(other, other_port)
        assert before == hive.path.read_text()
    assert kept(hive) == ["membership"]

    # Where the old credential counts no more, the new one is kept all the same.
    async with serve_queens(queen) as (port,):
        queen.renew_refusal = UnknownHive("this machine was removed")
        await hive.join(queen, port)
    assert kept(hive) == ["membership", "membership.new"]


# Moving


async def test_without_a_token_a_hive_follows_its_queen_and_keeps_its_credential(
    queen: Queen, hive: Hive, serve_queens: ServeQueens
) -> None:
    async with serve_queens(queen, queen) as (old, new):
        await hive.join(queen, old)
        before = hive.path.read_text()
        hive.invite(new, None, name=None)
        before, moved, port = before, await hive.guest.take_up_invitation(), new

    assert hive.path.read_text() == before
    assert not hive.memberships.adopt()
    assert moved._replace(path=hive.path) == hive.memberships.load()
    assert moved is not None
    assert (moved.hive_id, moved.port) == ("gpu1", port)
    after = hive.path.read_text()
    for what in ("PRIVATE KEY", "CERTIFICATE"):
        assert block(after, what) == block(before, what)
    assert queen.seen[-1] == ("/v1/renew", "c" * 32)
    assert len(queen.joins) == 1
    assert not hive.invitation.exists()


async def test_a_hive_does_not_follow_somebody_else(
    queen: Queen, hive: Hive, serve_queens: ServeQueens, tmp_path: Path
) -> None:
    other = Queen(tmp_path / "other", shows=queen.authority.ca)

    async with serve_queens(queen, other) as (port, other_port):
        await hive.join(queen, port)
        before = hive.path.read_text()
        hive.invite(other_port, None)
        with pytest.raises(WrongQueen):
            await hive.guest.take_up_invitation()

    assert hive.path.read_text() == before
    assert other.seen == []
    assert not hive.invitation.exists()


async def test_who_never_joined_can_follow_nobody(hive: Hive) -> None:
    hive.invite(8500, None)

    with pytest.raises(BadConfig, match="only a hive that has joined can follow its queen") as caught:
        await hive.guest.take_up_invitation()

    assert caught.value.hint == SYSTEM.rejoin
    assert not hive.invitation.exists()


# A mistyped address


@pytest.mark.parametrize(
    ("says", "told"),
    [(b"", "did not answer within 0.2 s"), (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak TLS as expected")],
)
async def test_who_joins_somebody_else_is_told_where_her_address_is_to_be_had(
    queen: Queen,
    hive: Hive,
    monkeypatch: pytest.MonkeyPatch,
    silent_notifier: Notifier,
    says: bytes,
    told: str,
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(hive.folder))
    monkeypatch.setattr(rbee.hive.join, "ASK_TIMEOUT", 0.2 if not says else 8)

    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(says)
        await reader.read()
        writer.close()

    journal = Journal("rbee-hive-join")

    async def scenario() -> BadConfig:
        async with await asyncio.start_server(speak, HERE, 0) as server:
            hive.invite(server.sockets[0].getsockname()[1], queen.token)
            with pytest.raises(BadConfig) as caught:
                await rbee.hive.join.run(silent_notifier, journal)
        return caught.value

    with closing(journal._socket):
        error = await scenario()

    assert told in error.message
    assert error.hint is not None
    assert error.hint.endswith(": rbeectl tcp status")


# The machine


async def test_the_machine_s_id_is_the_one_that_systemd_derives(
    queen: Queen, hive: Hive, serve_queens: ServeQueens
) -> None:
    if which("systemd-id128") is None or len(_read("/etc/machine-id").strip()) != 32:
        pytest.skip("there is no systemd-id128 here, or no machine-id")
    hive.guest = Guest(hive.folder)

    async with serve_queens(queen) as (port,):
        await hive.join(queen, port)

    assert queen.joins[0].machine == derived_by_systemd()


def derived_by_systemd() -> str:
    asked = ["systemd-id128", "machine-id", f"--app-specific={APPLICATION.hex()}"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def test_a_host_name_without_a_dot_is_the_whole_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "blade-7")

    assert own_name() == "blade-7"
