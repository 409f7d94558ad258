"""Turns of placements on hives."""

from __future__ import annotations

import asyncio
import gc

import pytest

from rbee.queen.serving.turns import Turns
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)


async def test_two_on_one_hive_take_turns_and_others_do_not_wait() -> None:
    turns, done = Turns(), []

    async def take(name: str, *hives: str) -> None:
        async with turns.on(hives):
            done.append(name)

    async with turns.on(("a", "b")):
        waiting = asyncio.ensure_future(take("second", "b", "c"))
        await take("other", "d")
        assert done == ["other"]
    await waiting
    assert done == ["other", "second"]


async def test_those_that_want_several_hives_never_wait_for_each_other() -> None:
    turns, at_work = Turns(), set[str]()

    async def take(*hives: str) -> None:
        for _ in range(20):
            async with turns.on(hives):
                assert not at_work & set(hives)
                at_work.update(hives)
                await asyncio.sleep(0)
                at_work.difference_update(hives)

    await asyncio.gather(take("a", "b"), take("b", "c"), take("c", "a"), take("b", "a"), take("c"))


async def test_one_that_gives_up_leaves_its_turn_to_others_and_no_lock_behind() -> None:
    turns = Turns()

    async def take() -> None:
        async with turns.on(("a", "b")):
            pass

    async with turns.on("b"):
        waiting = asyncio.ensure_future(take())
        await until(lambda: "a" in turns._locks and turns._locks["a"].locked())
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        async with turns.on("a"):
            pass
    del waiting
    await asyncio.sleep(0)  # the loop forgets the cancelled one
    gc.collect()
    assert dict(turns._locks) == {}
