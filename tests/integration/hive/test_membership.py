"""The membership that a hive keeps: its file, its renewal, and which one a start takes over."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import rbee.files
import rbee.hive.join
from rbee import tls
from rbee.client.link import Link
from rbee.errors import BadConfig, UnknownHive
from rbee.scope import SYSTEM
from rbee.wire.routes import FleetRoutes
from tests.integration.hive.joining import Hive, Queen, ServeQueens, block, kept, two_queens

pytestmark = pytest.mark.deadline(10)

ANOTHER_KEY = f"\n{tls.new_key()}".partition("\n-----END")[0]


# The file


async def test_a_membership_that_could_not_be_written_whole_leaves_the_one_before(
    queen: Queen, hive: Hive, serve_queens: ServeQueens, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    async with serve_queens(queen) as (port,):
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
    assert hive.path.read_text() != before
    assert hive.memberships.load() == membership
    assert sorted(path.name for path in hive.folder.iterdir()) == ["machine-id", "membership"]


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
async def test_what_is_no_membership_is_named_with_the_cure(hive: Hive, member: str, spoil: Any) -> None:
    hive.path.write_text(spoil(member), encoding="latin-1")

    with pytest.raises(BadConfig) as caught:
        hive.memberships.load()

    assert f"{hive.path} is not a valid membership" in caught.value.message
    assert caught.value.hint == SYSTEM.rejoin
    assert "PRIVATE KEY-----\n" not in caught.value.message


async def test_what_is_forgotten_is_gone_and_may_be_forgotten_again(hive: Hive, member: str) -> None:
    hive.memberships.forget()
    hive.memberships.forget()

    assert hive.memberships.load() is None
    assert not hive.path.exists()


# The hive's start with what was joined meanwhile


async def test_what_was_joined_beside_the_hive_is_its_own_when_it_next_starts(
    queen: Queen, other: Queen, hive: Hive, serve_queens: ServeQueens
) -> None:
    old, new = await two_queens(hive, queen, other, serve_queens)

    assert not hive.memberships.adopt()
    assert hive.path.read_text() == new
    assert (hive.folder / "membership.old").read_text() == old
    hive.memberships.confirm()
    assert kept(hive) == ["membership"]
    assert not hive.memberships.adopt()
    assert hive.path.read_text() == new


async def test_a_hive_that_was_not_ready_with_it_goes_back_to_what_it_was(
    queen: Queen, other: Queen, hive: Hive, serve_queens: ServeQueens
) -> None:
    old, _ = await two_queens(hive, queen, other, serve_queens)
    hive.memberships.adopt()

    assert hive.memberships.adopt()
    assert hive.path.read_text() == old
    assert kept(hive) == ["membership"]
    assert not hive.memberships.adopt()


@pytest.mark.parametrize("step", ["link", "rename"])
async def test_a_start_that_is_cut_off_while_it_takes_over_is_done_once_more(
    queen: Queen,
    other: Queen,
    hive: Hive,
    serve_queens: ServeQueens,
    step: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    old, new = await two_queens(hive, queen, other, serve_queens)

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


async def test_to_a_credential_that_its_queen_has_replaced_there_is_no_way_back(
    queen: Queen, hive: Hive, serve_queens: ServeQueens
) -> None:
    old, new = await two_queens(hive, queen, queen, serve_queens)
    assert block(old, "PRIVATE KEY") != block(new, "PRIVATE KEY")

    assert not hive.memberships.adopt()
    assert kept(hive) == ["membership"]
    assert not hive.memberships.adopt()
    assert hive.path.read_text() == new


async def test_what_cannot_be_read_is_not_taken_over(
    queen: Queen, hive: Hive, serve_queens: ServeQueens
) -> None:
    async with serve_queens(queen) as (port,):
        await hive.join(queen, port)
    before = hive.path.read_text()
    (hive.folder / "membership.new").write_text("# {}\n")

    assert not hive.memberships.adopt()
    assert hive.path.read_text() == before


async def test_a_renewal_meanwhile_disturbs_neither(
    queen: Queen, other: Queen, hive: Hive, serve_queens: ServeQueens
) -> None:
    async with serve_queens(queen, other) as (port, other_port):
        membership = await hive.join(queen, port)
        await hive.join(other, other_port)
        await hive.memberships.renew(membership)
    renewed, new = hive.path.read_text(), (hive.folder / "membership.new").read_text()
    assert not hive.memberships.adopt()
    assert hive.path.read_text() == new
    assert hive.memberships.adopt()
    assert hive.path.read_text() == renewed


# Renewal


async def test_a_renewal_keeps_the_key_and_goes_by_the_old_certificate(
    queen: Queen, hive: Hive, serve_queens: ServeQueens
) -> None:
    async with serve_queens(queen) as (port,):
        membership = await hive.join(queen, port)
        before = hive.path.read_text()
        before, renewed = before, await hive.memberships.renew(membership)

    after = hive.path.read_text()
    assert block(after, "PRIVATE KEY") == block(before, "PRIVATE KEY")
    assert block(after, "CERTIFICATE") != block(before, "CERTIFICATE")
    assert queen.seen[-1] == ("/v1/renew", "c" * 32)
    assert hive.memberships.load() == renewed
    assert hive.path.stat().st_mode & 0o777 == 0o600


async def test_connections_after_a_renewal_show_the_new_certificate(
    queen: Queen, hive: Hive, serve_queens: ServeQueens
) -> None:
    async with serve_queens(queen) as (port,):
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
    assert queen.seen == [("/v1/ca", "d" * 32)]


async def test_a_renewal_that_is_refused_leaves_the_membership_as_it_was(
    queen: Queen, hive: Hive, serve_queens: ServeQueens
) -> None:
    async with serve_queens(queen) as (port,):
        membership = await hive.join(queen, port)
        before = hive.path.read_text()
        queen.renew_refusal = UnknownHive("you were removed")
        with pytest.raises(UnknownHive):
            await hive.memberships.renew(membership)
        assert before == hive.path.read_text()


@pytest.mark.parametrize(("days", "is_time"), [(3.1, False), (2.9, True)])
async def test_a_certificate_is_renewed_after_two_thirds_of_its_life(
    queen: Queen,
    hive: Hive,
    serve_queens: ServeQueens,
    monkeypatch: pytest.MonkeyPatch,
    days: float,
    is_time: bool,
) -> None:
    # One of nine days, so many of which are left.
    monkeypatch.setattr("rbee.queen.authority.CLOCKS", timedelta(days=9 - days))
    monkeypatch.setattr("rbee.queen.authority.HIVE_LIFE", timedelta(days=days))

    async with serve_queens(queen) as (port,):
        joined = await hive.join(queen, port)

    assert joined.is_to_be_renewed() is is_time
