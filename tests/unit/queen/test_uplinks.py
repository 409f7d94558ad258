"""Hives on other machines as the queen reaches them: down their streams, and never where they are not."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest

import rbee.queen.uplinks
from rbee.contracts import HiveHealth, HiveRoutes
from rbee.errors import (
    BadInput,
    ClonedHive,
    Disconnected,
    HiveNotOnline,
    TimedOut,
    TooLarge,
    TooMany,
    Unreachable,
)
from rbee.queen.uplinks import ASKED_AT_ONCE, Uplink, Uplinks
from tests.unit.serving import until

Result = TypeVar("Result")

FIRST, SECOND = "1" * 32, "2" * 32
WELL = b'{"status": "ok", "version": "1"}'


def run(work: Coroutine[Any, Any, Result]) -> Result:
    async def scenario() -> Result:
        return await asyncio.wait_for(work, 10)

    return asyncio.run(scenario())


class Stream:
    """A hive's end of its stream: what is asked comes out, and the hive answers while it lives."""

    def __init__(self, name: str = "gpu1", instance: str = FIRST, address: str = "10.0.0.1") -> None:
        self.dropped = 0
        self.uplink = Uplink(name, instance, address, self._drop)
        self.lives = True
        self.asked: list[dict[str, Any]] = []
        self.ended = asyncio.Event()

    def _drop(self) -> None:
        self.dropped += 1

    async def hold(self) -> None:
        """As rbee.server sends it."""
        try:
            async for chunk in self.uplink:
                self._heard(chunk)
        finally:
            await self.uplink.aclose()
            self.ended.set()

    def _heard(self, chunk: bytes) -> None:
        if chunk.startswith(b":"):
            return
        kind, data = chunk.decode().strip().split("\n")
        assert kind == "event: request"
        asked = json.loads(data.removeprefix("data: "))
        self.asked.append(asked)
        if self.lives:
            self.uplink.answered(asked["id"], 200, WELL)


@pytest.fixture
def closed() -> list[Uplink]:
    return []


def test_what_is_asked_goes_down_and_its_answer_comes_back() -> None:
    async def scenario() -> None:
        stream = Stream()
        holding = asyncio.create_task(stream.hold())
        assert await stream.uplink.ask(HiveRoutes.HEALTH, timeout=5) == HiveHealth("ok", "1")
        (asked,) = stream.asked
        assert (asked["method"], asked["path"], asked["job_id"]) == ("GET", "/health", None)
        stream.uplink.close()
        await holding

    run(scenario())


def test_a_refusal_of_the_hive_s_is_raised_as_it_is() -> None:
    async def scenario() -> None:
        stream = Stream()
        stream.lives = False
        asking = asyncio.create_task(stream.uplink.ask(HiveRoutes.HEALTH, timeout=5))
        holding = asyncio.create_task(stream.hold())
        await until(lambda: len(stream.asked) == 1)
        problem = json.dumps(TooLarge("so large").to_problem()).encode()
        stream.uplink.answered(stream.asked[0]["id"], 413, problem)
        with pytest.raises(TooLarge, match="so large"):
            await asking
        # Nobody waits for it any more.
        stream.uplink.answered(stream.asked[0]["id"], 200, WELL)
        stream.uplink.answered("0" * 32, 200, WELL)
        stream.uplink.close()
        await holding

    run(scenario())


def test_who_asks_hears_of_silence_of_an_end_and_of_an_answer_that_is_not_taken() -> None:
    async def scenario() -> None:
        stream = Stream()
        stream.lives = False
        with pytest.raises(TimedOut, match="gpu1 did not answer within 0.01 s"):
            await stream.uplink.ask(HiveRoutes.HEALTH, timeout=0.01)

        asking = asyncio.create_task(stream.uplink.ask(HiveRoutes.HEALTH, timeout=5))
        holding = asyncio.create_task(stream.hold())
        await until(lambda: len(stream.asked) == 2)
        stream.uplink.not_answered(stream.asked[1]["id"], BadInput("it is too large"))
        with pytest.raises(Unreachable, match="the answer of the beehive gpu1: it is too large"):
            await asking

        asking = asyncio.create_task(stream.uplink.ask(HiveRoutes.HEALTH, timeout=5))
        await asyncio.sleep(0)
        holding.cancel()
        with pytest.raises(Disconnected, match="closed before it answered"):
            await asking
        with pytest.raises(Disconnected, match="has closed"):
            await stream.uplink.ask(HiveRoutes.HEALTH, timeout=5)

    run(scenario())


def test_as_many_wait_for_answers_as_may() -> None:
    async def scenario() -> None:
        stream = Stream()
        asking = [asyncio.create_task(stream.uplink.ask(HiveRoutes.HEALTH)) for _ in range(ASKED_AT_ONCE)]
        await asyncio.sleep(0)
        with pytest.raises(TooMany, match="wait for answers"):
            await stream.uplink.ask(HiveRoutes.HEALTH)
        stream.uplink.abort()
        for task in asking:
            with pytest.raises(Disconnected):
                await task

    run(scenario())


def test_a_stream_that_has_nothing_to_say_shows_that_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rbee.queen.uplinks, "KEEP_ALIVE", 0.001)

    async def scenario() -> list[bytes]:
        chunks = aiter(Stream().uplink)
        return [await anext(chunks) for _ in range(3)]

    assert run(scenario()) == [b": open\n\n"] * 3


# All of them


def test_a_hive_s_end_is_told_once_and_not_where_another_stream_of_its_has_come(closed: list[Uplink]) -> None:
    async def scenario() -> None:
        uplinks = Uplinks(closed.append)
        first, second = Stream(), Stream()
        await uplinks.take(first.uplink)
        # The same process, whose first connection broke: nobody is asked whether the old one lives.
        await uplinks.take(second.uplink)
        assert (first.dropped, first.asked, closed) == (1, [], [])
        assert uplinks.find("gpu1") is second.uplink

        uplinks.drop("gpu1")
        uplinks.drop("gpu1")
        await second.uplink.aclose()
        assert (second.dropped, closed) == (1, [second.uplink])
        assert uplinks.find("gpu1") is None

    run(scenario())


def test_another_process_takes_the_place_of_a_dead_one_and_not_of_one_that_lives(
    closed: list[Uplink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.queen.uplinks, "PROBE_TIMEOUT", 0.05)

    async def scenario() -> None:
        uplinks = Uplinks(closed.append)
        first, copy = Stream(), Stream(instance=SECOND, address="10.0.0.2")
        holding = asyncio.create_task(first.hold())
        await uplinks.take(first.uplink)
        with pytest.raises(
            ClonedHive, match=r"gpu1 is at 10\.0\.0\.1 already, and now also .* 10\.0\.0\.2"
        ) as said:
            await uplinks.take(copy.uplink)
        assert "/etc/machine-id" in (said.value.hint or "")
        assert uplinks.find("gpu1") is first.uplink
        with pytest.raises(ClonedHive):
            await uplinks.check_free("gpu1", "10.0.0.3")
        await uplinks.check_free("gpu2", "10.0.0.3")

        first.lives = False
        await uplinks.take(copy.uplink)
        assert (first.dropped, closed) == (1, [])
        assert uplinks.find("gpu1") is copy.uplink
        holding.cancel()
        await asyncio.gather(holding, return_exceptions=True)

    run(scenario())


def test_who_waits_for_a_stream_has_it_as_soon_as_it_comes(closed: list[Uplink]) -> None:
    async def scenario() -> None:
        uplinks = Uplinks(closed.append)
        with pytest.raises(HiveNotOnline, match="gpu1 is not connected"):
            await uplinks.wait("gpu1", timeout=0.01)
        waiting = [asyncio.create_task(uplinks.wait("gpu1", timeout=5)) for _ in range(3)]
        await asyncio.sleep(0)
        stream = Stream()
        await uplinks.take(stream.uplink)
        assert await asyncio.gather(*waiting) == [stream.uplink] * 3
        assert await uplinks.wait("gpu1", timeout=0) is stream.uplink

    run(scenario())


def test_who_waits_on_after_another_gave_up_has_the_stream_as_soon_as_it_comes(closed: list[Uplink]) -> None:
    async def scenario() -> None:
        uplinks = Uplinks(closed.append)
        first = asyncio.create_task(uplinks.wait("gpu1", timeout=0.01))
        second = asyncio.create_task(uplinks.wait("gpu1", timeout=60))
        await asyncio.gather(first, return_exceptions=True)
        stream = Stream()
        await uplinks.take(stream.uplink)
        assert await asyncio.wait_for(second, 5) is stream.uplink

    run(scenario())


def test_all_streams_end_in_order_when_the_queen_goes(closed: list[Uplink]) -> None:
    async def scenario() -> None:
        uplinks = Uplinks(closed.append)
        streams = [Stream(f"gpu{n}") for n in range(3)]
        for stream in streams:
            await uplinks.take(stream.uplink)
        holding = [asyncio.create_task(stream.hold()) for stream in streams]
        uplinks.close()
        await asyncio.gather(*holding)
        assert all(stream.dropped == 0 for stream in streams)
        assert uplinks.all() == []

    run(scenario())
