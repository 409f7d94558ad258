"""Samples of a hive's machine: readers at once share one request, and each failure says whose it is."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from rbee.client.link import HiveClient
from rbee.errors import Disconnected, HiveFailed, HiveNotOnline, NoSuchRoute, RbeeError, Stopping, TimedOut
from rbee.queen.hives.samples import SampleCache
from rbee.scope import SYSTEM
from rbee.wire.samples import Sample
from tests.unit.keeper.doubles import SAMPLE
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(5)


class Client:
    """A hive that reports a sample once it may, or refuses."""

    def __init__(self, refusal: RbeeError | None = None) -> None:
        self.refusal = refusal
        self.asked = 0
        self.may_answer = asyncio.Event()

    async def sample(self, *, timeout: float) -> Sample:
        self.asked += 1
        await self.may_answer.wait()
        if self.refusal is not None:
            raise self.refusal
        return SAMPLE


def cache_of(client: Client) -> SampleCache:
    return SampleCache("gpu1", lambda: cast(HiveClient, client), SYSTEM)


async def test_readers_at_once_share_one_request_and_the_next_has_its_own() -> None:
    client = Client()
    cache = cache_of(client)
    reading = [asyncio.ensure_future(cache.sample()) for _ in range(10)]
    await asyncio.sleep(0)
    client.may_answer.set()

    assert await asyncio.gather(*reading) == [SAMPLE] * 10
    assert client.asked == 1
    assert await cache.sample() == SAMPLE
    assert client.asked == 2


async def test_a_reader_who_goes_does_not_end_the_request_of_the_others() -> None:
    client = Client()
    cache = cache_of(client)
    gone, stays = (asyncio.ensure_future(cache.sample()) for _ in range(2))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.sleep(0)
    client.may_answer.set()

    assert await stays == SAMPLE
    assert gone.cancelled()


@pytest.mark.parametrize(
    ("refusal", "kind", "said"),
    [
        (TimedOut("x"), TimedOut, "did not report a sample of its machine within 5 s"),
        (NoSuchRoute("x"), HiveFailed, "has a version that does not report samples"),
        (Disconnected("it broke"), HiveFailed, "did not report a sample of its machine: it broke"),
    ],
    ids=["late", "old", "broken"],
)
async def test_each_failure_names_the_hive(refusal: RbeeError, kind: type[RbeeError], said: str) -> None:
    client = Client(refusal)
    client.may_answer.set()

    with pytest.raises(kind) as caught:
        await cache_of(client).sample()

    assert caught.value.message == f"the beehive gpu1 {said}"
    assert caught.value.hint


async def test_a_hive_that_is_not_connected_is_not_asked() -> None:
    def client() -> HiveClient:
        raise HiveNotOnline("the beehive gpu1 is not connected")

    with pytest.raises(HiveFailed, match="the beehive gpu1 is not connected"):
        await SampleCache("gpu1", client, SYSTEM).sample()


async def test_the_end_cuts_a_request_off_and_refuses_further_ones() -> None:
    client = Client()
    cache = cache_of(client)
    reading = asyncio.ensure_future(cache.sample())
    await until(lambda: client.asked == 1)
    await cache.end()

    with pytest.raises(asyncio.CancelledError):
        await reading
    with pytest.raises(Stopping):
        await cache.sample()
    assert client.asked == 1
