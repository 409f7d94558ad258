"""A hive that is asked for its devices and does not report them."""

from __future__ import annotations

import asyncio

import pytest

from rbee.errors import HiveFailed
from rbee.wire.devices import Devices
from tests.integration.queen.hives.local_hive import DEVICES, HAS, MakeQueen, error_of, hive_of, lines

pytestmark = pytest.mark.deadline(10)


async def test_a_hive_that_refuses_to_tell_its_devices_ends_the_story_there(queen: MakeQueen) -> None:
    def detect() -> Devices:
        raise RuntimeError("the driver is on fire")

    async with queen() as q:
        q.hive.detect = detect

        events = await q.add()

        error = error_of(events)
        assert type(error) is HiveFailed
        assert "the driver is on fire" in error.message
        assert ("bee hive", "detecting the devices failed: the driver is on fire") in lines(events)
        assert ("queen bee", HAS) not in lines(events)
        row = await q.row()
        assert row is not None
        assert (row[0] == "online", row[2]) == (False, None)
        assert q.life()[0] != "online"

        # The cure is to mend the cause and to say it again.
        q.hive.detect = lambda: DEVICES
        assert hive_of(await q.add()) is not None


async def test_a_hive_that_does_not_tell_its_devices_in_time_ends_the_story(queen: MakeQueen) -> None:
    loop, goes_on = asyncio.get_running_loop(), asyncio.Event()

    def detect() -> Devices:
        asyncio.run_coroutine_threadsafe(goes_on.wait(), loop).result(5)
        return DEVICES

    async with queen(detect_timeout=0.1) as q:
        q.hive.detect = detect
        events = await q.add()
        goes_on.set()

        assert "did not answer within 0.1 s" in error_of(events).message
        row = await q.row()
        assert row is not None
        assert row[2] is None
