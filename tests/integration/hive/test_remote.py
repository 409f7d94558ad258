"""A queen on another machine, as the hive has her: its certificate is renewed while it works."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, cast

import pytest

from rbee.errors import JoinedAnew, UnknownHive
from rbee.hive.heartbeat import GOODBYE_TIMEOUT, Heart
from rbee.hive.membership import Membership
from rbee.hive.remote import RemoteQueen
from rbee.scope import SYSTEM
from tests.integration.hive.joining import Hive, Queen, ServeQueens, block
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)


@pytest.fixture(autouse=True)
def due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each certificate is to be renewed, and that is checked all the time."""
    monkeypatch.setattr(Membership, "is_to_be_renewed", lambda _membership: True)
    monkeypatch.setattr("rbee.hive.remote.RENEWAL_INTERVAL", 0.05)


def renewals(queen: Queen) -> int:
    return queen.seen.count(("/v1/renew", "c" * 32)) - 1  # the first is the proof of having joined


async def test_a_certificate_that_is_due_is_renewed(
    queen: Queen, hive: Hive, serve_queens: ServeQueens
) -> None:
    async with serve_queens(queen) as (port,):
        remote = RemoteQueen(hive.memberships, await hive.join(queen, port), SYSTEM)
        before = hive.path.read_text()
        working = asyncio.ensure_future(remote._keep_certificate())
        await until(lambda: hive.path.read_text() != before)
        assert block(hive.path.read_text(), "PRIVATE KEY") == block(before, "PRIVATE KEY")
        working.cancel()


async def test_a_renewal_that_fails_is_logged_and_retried(
    queen: Queen, hive: Hive, serve_queens: ServeQueens, caplog: pytest.LogCaptureFixture
) -> None:
    async with serve_queens(queen) as (port,):
        remote = RemoteQueen(hive.memberships, await hive.join(queen, port), SYSTEM)
        queen.renew_refusal = UnknownHive("you were removed")
        working = asyncio.ensure_future(remote._keep_certificate())
        with caplog.at_level(logging.WARNING):
            await until(lambda: renewals(queen) >= 2)
        working.cancel()
    assert "the certificate could not be renewed, retrying later: you were removed" in caplog.text


async def test_a_hive_ends_where_a_membership_is_left_that_replaces_its_own(
    queen: Queen, hive: Hive, serve_queens: ServeQueens, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.hive.remote.SUCCESSION_LOOK", 0.01)
    monkeypatch.setattr("rbee.hive.remote.SUCCESSION_WAIT", 0.01)
    async with serve_queens(queen) as (port,):
        remote = RemoteQueen(hive.memberships, await hive.join(queen, port), SYSTEM)
        waiting = asyncio.ensure_future(remote._await_succession())
        done, _ = await asyncio.wait({waiting}, timeout=0.1)
        assert not done
        hive.path.with_name("membership.new").write_text("")
        with pytest.raises(JoinedAnew):
            await waiting


class PlayedHeart:
    def __init__(self) -> None:
        self.farewells: list[tuple[Any, float]] = []

    async def goodbye(self, find_machine_end: Any, *, timeout: float) -> None:
        self.farewells.append((find_machine_end(), timeout))


async def test_a_queen_elsewhere_hears_the_goodbye_of_a_machine_that_is_busy_going_down(
    queen: Queen, hive: Hive, serve_queens: ServeQueens
) -> None:
    heart = PlayedHeart()
    async with serve_queens(queen) as (port,):
        remote = RemoteQueen(hive.memberships, await hive.join(queen, port), SYSTEM)
        async with remote.farewell(cast(Heart, heart), lambda: "shutting-down"):
            ((end, patience),) = heart.farewells
        hive.path.unlink()
        async with remote.farewell(cast(Heart, heart), lambda: None):
            pass  # it was removed: she knows, and is not told
    assert (end, len(heart.farewells)) == ("shutting-down", 1)
    assert patience > 2 * GOODBYE_TIMEOUT


async def test_a_farewell_that_takes_too_long_is_broken_off(
    queen: Queen, hive: Hive, serve_queens: ServeQueens, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SlowHeart:
        async def goodbye(self, _find_machine_end: Any, *, timeout: float) -> None:
            await asyncio.sleep(60 * timeout)

    monkeypatch.setattr("rbee.hive.remote.FAREWELL_TIMEOUT", 0.05)
    async with serve_queens(queen) as (port,):
        remote = RemoteQueen(hive.memberships, await hive.join(queen, port), SYSTEM)
        async with remote.farewell(cast(Heart, SlowHeart()), lambda: None):
            pass
