"""The protocol that a connection continues with: its place in the limits, and a side that takes nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import rbee.server.upgrade
from rbee.server.upgrade import Upgraded, upgrade_to
from tests.unit.played_hive import Pipe

pytestmark = pytest.mark.deadline(5)


class Counted(Pipe):
    """A transport that says how much may wait in it."""

    high: int | None = None

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = high


async def connected() -> tuple[Upgraded, Counted]:
    protocol = Upgraded()
    transport = Counted(protocol, lambda data: None)
    protocol.connection_made(transport)
    return protocol, transport


async def test_it_hears_as_soon_as_anything_waits_to_be_sent() -> None:
    _, transport = await connected()

    assert transport.high == 0


async def test_a_side_that_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rbee.server.upgrade, "SEND_TIMEOUT", 0.01)
    protocol, transport = await connected()

    protocol.pause_writing()
    await asyncio.sleep(0.05)

    assert transport.is_aborted


@pytest.mark.parametrize("ends", [False, True], ids=["takes it", "has gone"])
async def test_a_side_that_takes_it_in_time_or_has_gone_is_not(
    monkeypatch: pytest.MonkeyPatch, ends: bool
) -> None:
    monkeypatch.setattr(rbee.server.upgrade, "SEND_TIMEOUT", 0.01)
    protocol, transport = await connected()

    protocol.pause_writing()
    if ends:
        protocol.connection_lost(None)
    else:
        protocol.resume_writing()
    await asyncio.sleep(0.05)

    assert not transport.is_aborted


async def test_its_place_is_given_back_at_its_end() -> None:
    protocol, _ = await connected()
    given: list[str] = []
    protocol.give_back = lambda: given.append("a place")
    protocol.connection_lost(None)

    assert given == ["a place"]


async def test_the_answer_is_101_and_hands_the_connection_over() -> None:
    protocol, taken = Upgraded(), []
    response = upgrade_to(protocol)

    async def nothing(*_arguments: Any) -> Any:
        raise AssertionError("an upgrade reads and sends nothing by itself")

    await response({"type": "http", "rbee.upgrade": taken.append}, nothing, nothing)

    assert response.status_code == 101
    assert taken == [protocol]
