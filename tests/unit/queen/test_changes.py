"""Changes that tasks wait for."""

from __future__ import annotations

import asyncio

import pytest

from rbee.queen.changes import Changes

pytestmark = pytest.mark.deadline(5)


async def test_everybody_who_waits_asks_again_at_each_change() -> None:
    changes, number = Changes(), 0
    waiting = [asyncio.ensure_future(changes.until(lambda least=least: number >= least)) for least in (1, 2)]
    await asyncio.sleep(0)

    for number in (1, 2):
        changes.announce()
        await asyncio.sleep(0.01)
        assert [one.done() for one in waiting] == [True, number == 2]


async def test_what_is_so_already_is_not_waited_for() -> None:
    await Changes().until(lambda: True, timeout=0.01)


async def test_a_wait_ends_at_its_deadline() -> None:
    with pytest.raises(TimeoutError):
        await Changes().until(lambda: False, timeout=0.01)


def test_who_hears_changes_is_called_at_each_of_them() -> None:
    heard: list[int] = []
    changes = Changes(lambda: heard.append(1))
    for _ in range(3):
        changes.announce()
    assert len(heard) == 3
