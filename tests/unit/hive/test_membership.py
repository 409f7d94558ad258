"""Joining a queen elsewhere, by rbee.hive.join, and what is kept of it.

She is played behind the product's server, over TLS.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from shutil import which
from types import SimpleNamespace
from typing import Any, TypeVar

import pytest
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

import rbee.files
import rbee.hive.join
from rbee import __version__, tls
from rbee.client.link import Link
from rbee.errors import BadConfig, BadInput, BadToken, NotRunning, RbeeError, UnknownHive, WrongQueen
from rbee.hive.join import APPLICATION, Guest, own_name
from rbee.hive.membership import Membership, Memberships
from rbee.narration import Journal
from rbee.queen.authority import Authority, Identity
from rbee.scope import SYSTEM
from rbee.server.app import build_app
from rbee.server.requests import read_shape, remote_peer_of
from rbee.systemd.daemon import Notifier
from rbee.wire.fleet import Join, Joined, Renew
from rbee.wire.routes import INSTANCE_HEADER, FleetRoutes
from tests.unit.remote_queen import HERE, served_over_tcp, unheard_port

Result = TypeVar("Result")

SECRET = "s" * 32
MACHINE_ID = "0123456789abcdef0123456789abcdef"
APP_SPECIFIC = "e06cb9c90684420ca566510158fadbe9"
"""What systemd-id128 machine-id --app-specific=6f1b… of systemd 252 says on a machine with that id."""


def run(work: Coroutine[Any, Any, Result]) -> Result:
    async def scenario() -> Result:
        return await asyncio.wait_for(work, 10)

    return asyncio.run(scenario())


class Queen:
    """`seen` is every request, with the credential that it came by."""

    def __init__(self, folder: Path, *, shows: str | None = None) -> None:
        self.authority = Authority.open(folder)
        self.shows = self.authority.ca if shows is None else shows
        self.seen: list[tuple[str, str | None]] = []
        self.joins: list[Join] = []
        self.instances: list[str | None] = []
        self.refusal: RbeeError | None = None
        self.renew_refusal: RbeeError | None = None
        self.credential = "c" * 32
        self.when_joined: Callable[[], object] = lambda: None

    @property
    def token(self) -> str:
        return tls.token_text("0" * 8, SECRET, self.authority.fingerprint)

    def _see(self, request: Request) -> None:
        self.seen.append((request.url.path, remote_peer_of(request).credential))

    async def _ca(self, request: Request) -> Response:
        self._see(request)
        return Response(self.shows, media_type=FleetRoutes.CA.media_type)

    async def _join(self, request: Request) -> Joined:
        self._see(request)
        if self.refusal is not None:
            raise self.refusal
        asked: Join = await read_shape(request, Join)
        self.joins.append(asked)
        self.instances.append(request.headers.get(INSTANCE_HEADER))
        self.when_joined()
        return self._sign(asked.name, asked.request)

    async def _renew(self, request: Request) -> Joined:
        self._see(request)
        if self.renew_refusal is not None:
            raise self.renew_refusal
        asked: Renew = await read_shape(request, Renew)
        return self._sign("gpu1", asked.request)

    def _sign(self, name: str, request: str) -> Joined:
        return Joined(name, self.authority.sign(request, Identity(name, self.credential)))

    def app(self) -> ASGIApp:
        handlers = {FleetRoutes.CA: self._ca, FleetRoutes.JOIN: self._join, FleetRoutes.RENEW: self._renew}
        return build_app("a queen", "1", handlers)


class Hive:
    """The state directory of a hive, on a machine with a machine-id of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.machine_id = folder / "machine-id"
        self.machine_id.write_text(f"{MACHINE_ID}\n")
        self.invitation = folder / "invitation"
        self.path = folder / "membership"
        self.memberships = Memberships(folder)
        self.instance: str | None = None
        self.guest = Guest(folder, machine_id=self.machine_id, instance=lambda: self.instance)

    def invite(self, port: int, token: str | None, *, name: str | None = "gpu1", host: str = HERE) -> None:
        self.invitation.write_text(json.dumps({"host": host, "port": port, "name": name, "token": token}))

    async def join(self, queen: Queen, port: int) -> Membership:
        self.invite(port, queen.token)
        membership = await self.guest.take_up_invitation()
        assert membership is not None
        return membership


@pytest.fixture
def queen(tmp_path: Path) -> Queen:
    return Queen(tmp_path / "keys")


@pytest.fixture
def hive(tmp_path: Path) -> Hive:
    return Hive(tmp_path / "hive")


@pytest.fixture
def serving(silent_notifier: Notifier) -> Any:
    """Run what takes the ports of these queens while they answer."""

    def run_with(work: Callable[..., Coroutine[Any, Any, Result]], *queens: Queen) -> Result:
        async def scenario() -> Result:
            async with AsyncExitStack() as open_queens:
                ports = [
                    await open_queens.enter_async_context(
                        served_over_tcp(queen.app(), queen.authority.context(), silent_notifier)
                    )
                    for queen in queens
                ]
                return await work(*ports)

        return run(scenario())

    return run_with


ANOTHER_KEY = f"\n{tls.new_key()}".partition("\n-----END")[0]


def block(content: str, what: str) -> str:
    """Of the file below its first line, which has the CA's certificate in it."""
    begin, end = f"\n-----BEGIN {what}-----\n", f"\n-----END {what}-----\n"
    below = content[content.index("\n") :]
    assert below.count(begin) == 1
    return below[below.index(begin) : below.index(end)]


# Joining


def test_an_invitation_is_taken_up_once_and_what_came_of_it_is_kept(
    queen: Queen, hive: Hive, serving: Any
) -> None:
    async def work(port: int) -> tuple[Membership, Membership | None]:
        return await hive.join(queen, port), await hive.guest.take_up_invitation()

    joined, again = serving(work, queen)

    assert again is None
    assert not hive.invitation.exists()
    assert (joined.hive_id, joined.host, joined.ca) == ("gpu1", HERE, queen.authority.ca)
    assert hive.memberships.load() == joined
    # The last is the proof: by the credential that it has now.
    assert queen.seen == [("/v1/ca", None), ("/v1/join", None), ("/v1/renew", "c" * 32)]


def test_without_an_invitation_nobody_is_asked(hive: Hive) -> None:
    assert run(hive.guest.take_up_invitation()) is None
    assert hive.memberships.load() is None


def test_a_join_shows_token_name_version_and_machine_but_not_the_machine_s_own_id(
    queen: Queen, hive: Hive, serving: Any
) -> None:
    serving(lambda port: hive.join(queen, port), queen)

    (join,) = queen.joins
    assert (join.token, join.name, join.version) == (queen.token, "gpu1", __version__)
    assert join.machine == APP_SPECIFIC
    assert MACHINE_ID not in json.dumps([join.request, join.machine])


def test_a_hive_that_is_given_no_name_has_that_of_its_machine_up_to_the_first_dot(
    queen: Queen, hive: Hive, serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.hive.join, "socket", SimpleNamespace(gethostname=lambda: "rack3.lab.example"))

    async def work(port: int) -> Membership | None:
        hive.invite(port, queen.token, name=None)
        return await hive.guest.take_up_invitation()

    assert serving(work, queen).hive_id == "rack3"
    assert own_name() == "rack3"


def test_the_credential_is_shown_to_her_and_not_to_her_as_a_stranger(
    queen: Queen, hive: Hive, serving: Any
) -> None:
    async def work(port: int) -> None:
        membership = await hive.join(queen, port)
        queen.seen.clear()
        for place in (membership.queen(), membership.queen_to_strangers()):
            link = Link(place, timeout=5)
            try:
                await link.ask(FleetRoutes.CA)
            finally:
                await link.close()

    serving(work, queen)
    assert queen.seen == [("/v1/ca", "c" * 32), ("/v1/ca", None)]


@pytest.mark.parametrize("umask", [0o000, 0o027], ids=oct)
def test_the_membership_is_its_owner_s_alone_whatever_the_umask(
    queen: Queen, hive: Hive, serving: Any, umask: int
) -> None:
    async def work(port: int) -> None:
        queen.authority.context()
        before = os.umask(umask)
        try:
            await hive.join(queen, port)
        finally:
            os.umask(before)

    serving(work, queen)
    assert hive.path.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in hive.folder.iterdir()) == ["machine-id", "membership"]


# What keeps it from joining


def failing(serving: Any, hive: Hive, queen: Queen, token: str) -> RbeeError:
    """How joining this queen with this token fails."""

    async def work(port: int) -> RbeeError:
        hive.invite(port, token)
        with pytest.raises(RbeeError) as caught:
            await hive.guest.take_up_invitation()
        return caught.value

    return serving(work, queen)


def test_a_refused_invitation_is_gone_and_no_membership_is_left(
    queen: Queen, hive: Hive, serving: Any
) -> None:
    queen.refusal = BadToken("the token is spent", hint="rbeectl token create")

    error = failing(serving, hive, queen, queen.token)

    assert (type(error), error.message, error.hint) == (
        BadToken,
        "the token is spent",
        "rbeectl token create",
    )
    assert [path.name for path in hive.folder.iterdir()] == ["machine-id"]


def test_an_invitation_to_where_nobody_listens_is_gone_too(queen: Queen, hive: Hive) -> None:
    async def scenario() -> None:
        with unheard_port() as port:
            hive.invite(port, queen.token)
            await hive.guest.take_up_invitation()

    with pytest.raises(NotRunning):
        run(scenario())
    assert not hive.invitation.exists()


def test_to_a_queen_with_another_fingerprint_no_token_is_shown(
    queen: Queen, hive: Hive, serving: Any, tmp_path: Path
) -> None:
    other = Authority.open(tmp_path / "other")

    error = failing(serving, hive, queen, tls.token_text("0" * 8, SECRET, other.fingerprint))

    assert type(error) is WrongQueen
    assert "is not the queen that the token is of" in error.message
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
def test_to_who_has_no_certificate_to_show_no_token_is_shown(
    queen: Queen, hive: Hive, serving: Any, shown: str
) -> None:
    queen.shows = shown

    assert type(failing(serving, hive, queen, queen.token)) is WrongQueen
    assert [path for path, _ in queen.seen] == ["/v1/ca"]


def test_to_who_shows_her_certificate_and_has_not_her_key_no_token_is_shown(
    queen: Queen, hive: Hive, serving: Any, tmp_path: Path
) -> None:
    between = Queen(tmp_path / "between", shows=queen.authority.ca)

    error = failing(serving, hive, between, queen.token)

    assert type(error) is WrongQueen
    assert [path for path, _ in between.seen] == ["/v1/ca"]


def test_a_token_that_is_none_is_never_repeated_and_nobody_is_asked(
    queen: Queen, hive: Hive, serving: Any
) -> None:
    error = failing(serving, hive, queen, "hunter2")

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
def test_what_is_no_invitation_is_named_with_the_cure_and_is_gone(hive: Hive, content: bytes) -> None:
    hive.invitation.write_bytes(content)

    with pytest.raises(BadConfig, match="invitation is no invitation") as caught:
        run(hive.guest.take_up_invitation())

    assert caught.value.hint == SYSTEM.rejoin
    assert not hive.invitation.exists()


@pytest.mark.parametrize("machine_id", ["", "uninitialized\n", "0" * 31, f"{MACHINE_ID[:-1]}G"])
def test_a_machine_without_an_id_shows_no_token_and_says_how_to_get_one(
    queen: Queen, hive: Hive, serving: Any, machine_id: str
) -> None:
    hive.machine_id.write_text(machine_id)

    error = failing(serving, hive, queen, queen.token)

    assert (type(error), error.hint) == (BadConfig, "sudo systemd-machine-id-setup")
    assert queen.joins == []


def test_joining_another_queen_in_vain_leaves_the_membership_as_it_was(
    queen: Queen, hive: Hive, serving: Any, tmp_path: Path
) -> None:
    other = Queen(tmp_path / "other")
    other.refusal = BadToken("the token has expired")

    async def work(port: int, other_port: int) -> str:
        await hive.join(queen, port)
        before = hive.path.read_text()
        hive.invite(other_port, other.token)
        with pytest.raises(BadToken):
            await hive.guest.take_up_invitation()
        return before

    assert hive.path.exists() is False
    before = serving(work, queen, other)
    assert hive.path.read_text() == before


# The file


def test_a_membership_that_could_not_be_written_whole_leaves_the_one_before(
    queen: Queen, hive: Hive, serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    async def work(port: int) -> tuple[str, Membership]:
        membership = await hive.join(queen, port)
        before = hive.path.read_text()
        with monkeypatch.context() as patch:
            patch.setattr(rbee.files.os, "fsync", no_space)
            with pytest.raises(BadConfig, match="No space left") as caught:
                await hive.memberships.renew(membership)
            assert caught.value.message == f"{hive.path} cannot be written: No space left on device"
            assert caught.value.hint == f"df -h {hive.folder}"
        assert hive.path.read_text() == before
        # What is left of it is in nobody's way.
        await hive.memberships.renew(membership)
        return before, membership

    before, membership = serving(work, queen)
    assert hive.path.read_text() != before
    assert hive.memberships.load() == membership
    assert sorted(path.name for path in hive.folder.iterdir()) == ["machine-id", "membership"]


@pytest.fixture
def member(queen: Queen, hive: Hive, serving: Any) -> str:
    """A hive that has joined; what its membership holds."""
    serving(lambda port: hive.join(queen, port), queen)
    return hive.path.read_text()


def _without(what: str) -> Callable[[str], str]:
    return lambda content: content.replace(block(content, what), "")


def _told(**changed: Any) -> Callable[[str], str]:
    def change(content: str) -> str:
        head, _, rest = content.partition("\n")
        return f"# {json.dumps({**json.loads(head.removeprefix('# ')), **changed})}\n{rest}"

    return change


@pytest.mark.parametrize(
    "spoil",
    [
        lambda content: "",
        lambda content: "\xff",
        lambda content: "# {}\n" + content.partition("\n")[2],
        lambda content: content.partition("\n")[2],
        lambda content: content[: len(content) // 2],
        _without("PRIVATE KEY"),
        _without("CERTIFICATE"),
        _told(ca="no certificate"),
        _told(port=0),
        _told(host="a host"),
        _told(hive_id=None),
        lambda content: content.replace(block(content, "PRIVATE KEY"), ANOTHER_KEY),
    ],
    ids=[
        "empty", "bytes", "told nothing", "no head", "half", "no key", "no certificate", "no CA", "no port",
        "no host", "no id", "another key",
    ],
)  # fmt: skip
def test_what_is_no_membership_is_named_with_the_cure(hive: Hive, member: str, spoil: Any) -> None:
    hive.path.write_text(spoil(member), encoding="latin-1")

    with pytest.raises(BadConfig) as caught:
        hive.memberships.load()

    assert f"{hive.path} is no membership" in caught.value.message
    assert caught.value.hint == SYSTEM.rejoin
    assert "PRIVATE KEY-----\n" not in caught.value.message


def test_what_is_forgotten_is_gone_and_may_be_forgotten_again(hive: Hive, member: str) -> None:
    hive.memberships.forget()
    hive.memberships.forget()

    assert hive.memberships.load() is None
    assert not hive.path.exists()


# Moving


def test_without_a_token_a_hive_follows_its_queen_and_keeps_its_credential(
    queen: Queen, hive: Hive, serving: Any
) -> None:
    async def work(old: int, new: int) -> tuple[str, Membership | None, int]:
        await hive.join(queen, old)
        before = hive.path.read_text()
        hive.invite(new, None, name=None)
        return before, await hive.guest.take_up_invitation(), new

    before, moved, port = serving(work, queen, queen)

    assert hive.path.read_text() == before
    assert not hive.memberships.adopt()
    assert replace(moved, path=hive.path) == hive.memberships.load()
    assert moved is not None
    assert (moved.hive_id, moved.port) == ("gpu1", port)
    after = hive.path.read_text()
    for what in ("PRIVATE KEY", "CERTIFICATE"):
        assert block(after, what) == block(before, what)
    assert queen.seen[-1] == ("/v1/renew", "c" * 32)
    assert len(queen.joins) == 1
    assert not hive.invitation.exists()


def test_a_hive_does_not_follow_somebody_else(queen: Queen, hive: Hive, serving: Any, tmp_path: Path) -> None:
    other = Queen(tmp_path / "other", shows=queen.authority.ca)

    async def work(port: int, elsewhere: int) -> str:
        await hive.join(queen, port)
        before = hive.path.read_text()
        hive.invite(elsewhere, None)
        with pytest.raises(WrongQueen):
            await hive.guest.take_up_invitation()
        return before

    before = serving(work, queen, other)

    assert hive.path.read_text() == before
    assert other.seen == []
    assert not hive.invitation.exists()


def test_who_never_joined_can_follow_nobody(hive: Hive) -> None:
    hive.invite(8500, None)

    with pytest.raises(BadConfig, match="only a hive that has joined can follow its queen") as caught:
        run(hive.guest.take_up_invitation())

    assert caught.value.hint == SYSTEM.rejoin
    assert not hive.invitation.exists()


# The hive's start with what was joined meanwhile


def two_queens(hive: Hive, queen: Queen, other: Queen, serving: Any) -> tuple[str, str]:
    """A hive of the first queen, who has joined the other since; what is kept of either."""

    async def work(port: int, elsewhere: int) -> None:
        await hive.join(queen, port)
        hive.memberships.confirm()
        await hive.join(other, elsewhere)

    serving(work, queen, other)
    return hive.path.read_text(), (hive.folder / "membership.new").read_text()


def kept(hive: Hive) -> list[str]:
    return sorted(path.name for path in hive.folder.glob("membership*"))


@pytest.fixture
def other(tmp_path: Path) -> Queen:
    return Queen(tmp_path / "other")


def test_what_was_joined_beside_the_hive_is_its_own_when_it_next_starts(
    queen: Queen, other: Queen, hive: Hive, serving: Any
) -> None:
    old, new = two_queens(hive, queen, other, serving)

    assert not hive.memberships.adopt()
    assert hive.path.read_text() == new
    assert (hive.folder / "membership.old").read_text() == old
    hive.memberships.confirm()
    assert kept(hive) == ["membership"]
    assert not hive.memberships.adopt()
    assert hive.path.read_text() == new


def test_a_hive_that_was_not_ready_with_it_goes_back_to_what_it_was(
    queen: Queen, other: Queen, hive: Hive, serving: Any
) -> None:
    old, _ = two_queens(hive, queen, other, serving)
    hive.memberships.adopt()

    assert hive.memberships.adopt()
    assert hive.path.read_text() == old
    assert kept(hive) == ["membership"]
    assert not hive.memberships.adopt()


@pytest.mark.parametrize("step", ["link", "rename"])
def test_a_start_that_is_cut_off_while_it_takes_over_is_done_once_more(
    queen: Queen, other: Queen, hive: Hive, serving: Any, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = two_queens(hive, queen, other, serving)

    class PowerLoss(BaseException):
        pass

    def cut_off(*_arguments: Any) -> None:
        raise PowerLoss

    with monkeypatch.context() as until_boot:
        until_boot.setattr(*((os, "link") if step == "link" else (Path, "rename")), cut_off)
        with pytest.raises(PowerLoss):
            hive.memberships.adopt()

    assert hive.path.read_text() == old
    assert not hive.memberships.adopt()
    assert hive.path.read_text() == new
    assert (hive.folder / "membership.old").read_text() == old


def test_to_a_credential_that_its_queen_has_replaced_there_is_no_way_back(
    queen: Queen, hive: Hive, serving: Any
) -> None:
    old, new = two_queens(hive, queen, queen, serving)
    assert block(old, "PRIVATE KEY") != block(new, "PRIVATE KEY")

    assert not hive.memberships.adopt()
    assert kept(hive) == ["membership"]
    assert not hive.memberships.adopt()
    assert hive.path.read_text() == new


def test_a_hive_that_joins_its_queen_anew_shows_that_it_is_no_copy(
    queen: Queen, hive: Hive, serving: Any
) -> None:
    hive.instance = "1" * 32
    two_queens(hive, queen, queen, serving)

    joins = [credential for path, credential in queen.seen if path == "/v1/join"]
    assert joins == [None, "c" * 32]
    assert queen.instances == [None, "1" * 32]


def test_a_join_anew_that_is_told_to_stop_once_the_queen_has_the_token_is_finished(
    queen: Queen, hive: Hive, serving: Any
) -> None:
    async def twice(port: int) -> None:
        await hive.join(queen, port)
        queen.when_joined = lambda: os.kill(os.getpid(), signal.SIGTERM)
        await hive.join(queen, port)

    before = signal.getsignal(signal.SIGTERM)
    serving(twice, queen)

    assert hive.memberships.has_new()
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_queen_who_does_not_answer_to_the_new_credential_changes_nothing(
    queen: Queen, other: Queen, hive: Hive, serving: Any
) -> None:
    async def work(port: int, elsewhere: int) -> str:
        await hive.join(queen, port)
        before = hive.path.read_text()
        other.renew_refusal = UnknownHive("this machine was removed")
        with pytest.raises(UnknownHive):
            await hive.join(other, elsewhere)
        return before

    assert serving(work, queen, other) == hive.path.read_text()
    assert kept(hive) == ["membership"]

    # Where the old credential counts no more, the new one is kept all the same.
    async def anew(port: int) -> None:
        queen.renew_refusal = UnknownHive("this machine was removed")
        await hive.join(queen, port)

    serving(anew, queen)
    assert kept(hive) == ["membership", "membership.new"]


def test_what_cannot_be_read_is_not_taken_over(queen: Queen, hive: Hive, serving: Any) -> None:
    serving(lambda port: hive.join(queen, port), queen)
    before = hive.path.read_text()
    (hive.folder / "membership.new").write_text("# {}\n")

    assert not hive.memberships.adopt()
    assert hive.path.read_text() == before


def test_a_renewal_meanwhile_disturbs_neither(queen: Queen, other: Queen, hive: Hive, serving: Any) -> None:
    async def work(port: int, elsewhere: int) -> None:
        membership = await hive.join(queen, port)
        await hive.join(other, elsewhere)
        await hive.memberships.renew(membership)

    serving(work, queen, other)
    renewed, new = hive.path.read_text(), (hive.folder / "membership.new").read_text()
    assert not hive.memberships.adopt()
    assert hive.path.read_text() == new
    assert hive.memberships.adopt()
    assert hive.path.read_text() == renewed


# Renewal


def test_a_renewal_keeps_the_key_and_goes_by_the_old_certificate(
    queen: Queen, hive: Hive, serving: Any
) -> None:
    async def work(port: int) -> tuple[str, Membership]:
        membership = await hive.join(queen, port)
        before = hive.path.read_text()
        return before, await hive.memberships.renew(membership)

    before, renewed = serving(work, queen)

    after = hive.path.read_text()
    assert block(after, "PRIVATE KEY") == block(before, "PRIVATE KEY")
    assert block(after, "CERTIFICATE") != block(before, "CERTIFICATE")
    assert queen.seen[-1] == ("/v1/renew", "c" * 32)
    assert hive.memberships.load() == renewed
    assert hive.path.stat().st_mode & 0o777 == 0o600


def test_connections_after_a_renewal_show_the_new_certificate(queen: Queen, hive: Hive, serving: Any) -> None:
    async def work(port: int) -> None:
        membership = await hive.join(queen, port)
        place = membership.queen()
        queen.credential = "d" * 32
        await hive.memberships.renew(membership)
        queen.seen.clear()
        membership.show(place)
        link = Link(place, timeout=5)
        try:
            await link.ask(FleetRoutes.CA)
        finally:
            await link.close()

    serving(work, queen)
    assert queen.seen == [("/v1/ca", "d" * 32)]


def test_a_renewal_that_is_refused_leaves_the_membership_as_it_was(
    queen: Queen, hive: Hive, serving: Any
) -> None:
    async def work(port: int) -> str:
        membership = await hive.join(queen, port)
        before = hive.path.read_text()
        queen.renew_refusal = UnknownHive("you were removed")
        with pytest.raises(UnknownHive):
            await hive.memberships.renew(membership)
        return before

    assert serving(work, queen) == hive.path.read_text()


@pytest.mark.parametrize(("days", "is_time"), [(3.1, False), (2.9, True)])
def test_a_certificate_is_renewed_after_two_thirds_of_its_life(
    queen: Queen, hive: Hive, serving: Any, monkeypatch: pytest.MonkeyPatch, days: float, is_time: bool
) -> None:
    # One of nine days, so many of which are left.
    monkeypatch.setattr("rbee.queen.authority.CLOCKS", timedelta(days=9 - days))
    monkeypatch.setattr("rbee.queen.authority.HIVE_LIFE", timedelta(days=days))

    joined = serving(lambda port: hive.join(queen, port), queen)

    assert joined.is_to_be_renewed() is is_time


# A mistyped address


@pytest.mark.parametrize(
    ("says", "told"),
    [(b"", "did not answer within 0.2 s"), (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak TLS as agreed")],
)
def test_who_joins_somebody_else_is_told_where_her_address_is_to_be_had(
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
        error = run(scenario())

    assert told in error.message
    assert error.hint is not None
    assert error.hint.endswith(": rbeectl tcp status")


# The machine


def test_the_machine_s_id_is_the_one_that_systemd_derives(queen: Queen, hive: Hive, serving: Any) -> None:
    if which("systemd-id128") is None or len(_read("/etc/machine-id").strip()) != 32:
        pytest.skip("there is no systemd-id128 here, or no machine-id")
    hive.guest = Guest(hive.folder)

    serving(lambda port: hive.join(queen, port), queen)

    asked = ["systemd-id128", "machine-id", f"--app-specific={APPLICATION.hex()}"]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    assert queen.joins[0].machine == told


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def test_a_host_name_without_a_dot_is_the_whole_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "blade-7")

    assert own_name() == "blade-7"
