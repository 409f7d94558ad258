"""What a hive offers its queen, over TLS: she asks its app over the connections that it dials for her."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from starlette.requests import Request
from starlette.responses import Response

import rbee.uplink.accept
import rbee.uplink.offer
from rbee.errors import (
    Disconnected,
    HiveFailed,
    HiveNotOnline,
    NoSuchMethod,
    NoSuchRoute,
    RbeeError,
    TimedOut,
    TooLarge,
)
from rbee.server.app import build_app
from rbee.server.connection import BODY_LIMIT
from rbee.server.peer import RemotePeer
from rbee.server.requests import any_peer_of, read_body
from rbee.server.responses import event_stream
from rbee.systemd.daemon import Notifier
from rbee.tls import QUEEN_NAME
from rbee.uplink.accept import CARRIERS_MAX
from rbee.uplink.frames import Dial, write_frame
from rbee.uplink.offer import DIALLED_MAX
from rbee.wire.daemon import Health
from rbee.wire.devices import Cpu, Devices
from rbee.wire.routes import JOB_HEADER, HiveRoutes, Route
from tests.integration.hive.test_dial import Queen, Times, held, queen
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)

__all__ = ["queen"]

JOB = "7" * 32
DEVICES = Devices(Cpu("a cpu", 1, 2, 4, 8 * 2**30))


async def test_what_she_asks_is_put_to_the_app_as_from_her(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    async def devices(request: Request) -> Devices:
        seen.append((request.headers.get(JOB_HEADER), any_peer_of(request)))
        return DEVICES

    app = build_app("a hive", "1", {HiveRoutes.DEVICES: devices})

    async with held(queen, silent_notifier, Times(monkeypatch), app=app) as (_, stream):
        for job_id in (JOB, None):
            assert await stream.uplink.client.devices(job_id=job_id, timeout=5) == DEVICES
    peer = RemotePeer("127.0.0.1", QUEEN_NAME)
    assert seen == [(JOB, peer), (None, peer)]
    assert queen.carriers == 1


async def test_the_hive_s_refusals_come_as_they_are(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_request: Request) -> Devices:
        raise HiveFailed("its driver hangs", hint="modprobe nvidia")

    app = build_app("a hive", "1", {HiveRoutes.DEVICES: refuse})

    async with held(queen, silent_notifier, Times(monkeypatch), app=app) as (_, stream):
        told = []
        for route in (
            HiveRoutes.DEVICES,
            replace(HiveRoutes.DEVICES, path="/nowhere"),
            replace(HiveRoutes.DEVICES, method="POST"),
        ):
            with pytest.raises(RbeeError) as caught:
                await stream.uplink.ask(route, timeout=5)
            told.append(caught.value)
    assert [type(error) for error in told] == [HiveFailed, NoSuchRoute, NoSuchMethod]
    assert (told[0].message, told[0].hint) == ("its driver hangs", "modprobe nvidia")


async def test_an_internal_error_is_answered_with_500_and_keeps_its_traceback(
    queen: Queen,
    silent_notifier: Notifier,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(_request: Request) -> Devices:
        raise ZeroDivisionError("a bug")

    app = build_app("a hive", "1", {HiveRoutes.DEVICES: fail})

    async with held(queen, silent_notifier, Times(monkeypatch), app=app) as (_, stream):
        with pytest.raises(RbeeError) as caught:
            await stream.uplink.ask(HiveRoutes.DEVICES, timeout=5)
        assert caught.value.status == 500
    assert "ZeroDivisionError: a bug" in caplog.text


ECHO = Route("DELETE", "/echo", "What came", Health)
FEED: Route[None] = Route("GET", "/feed", "Without an end", None)


async def test_bodies_of_any_method_and_answers_of_megabytes_are_carried_and_bounded_as_locally(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def echo(request: Request) -> Health:
        return Health("ok", (await read_body(request)).decode()[:100])

    async def devices(_request: Request) -> Devices:
        return Devices(Cpu(*(None,) * 5), model_catalog=("y" * 253,) * 8000)

    app = build_app("a hive", "1", {ECHO: echo, HiveRoutes.DEVICES: devices})

    async with held(queen, silent_notifier, Times(monkeypatch), app=app) as (_, stream):
        assert (await stream.uplink.ask(ECHO, {"a": 1}, timeout=5)).version == '{"a": 1}'
        large = {"a": "x" * (BODY_LIMIT - 9)}
        assert (await stream.uplink.ask(ECHO, large, timeout=5)).version.startswith('{"a": "xxx')
        with pytest.raises(TooLarge):
            await stream.uplink.ask(ECHO, {"a": "x" * BODY_LIMIT}, timeout=5)
        told = await stream.uplink.client.devices(job_id=None, timeout=5)
        assert len(told.model_catalog) == 8000


async def test_a_stream_is_carried_and_its_end_either_way(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ticks:
        def __init__(self, last: int) -> None:
            self._last = last
            self.ended = asyncio.Event()

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for number in range(self._last):
                yield b"%d\n" % number
                await asyncio.sleep(0)

        async def aclose(self) -> None:
            self.ended.set()

    ticks = Ticks(3)

    async def feed(_request: Request) -> Response:
        return event_stream(ticks)

    app = build_app("a hive", "1", {FEED: feed})
    async with held(queen, silent_notifier, Times(monkeypatch), app=app) as (_, stream):
        async with stream.uplink.stream(FEED, headers={}, silence=5) as parts:
            assert b"".join([part async for part in parts]) == b"0\n1\n2\n"
        ticks = Ticks(10**9)
        async with stream.uplink.stream(FEED, headers={}, silence=5) as parts:
            assert (await anext(parts)).startswith(b"0\n")
        await ticks.ended.wait()


async def test_one_answer_that_takes_long_holds_up_no_other(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = asyncio.Event()

    async def devices(_request: Request) -> Devices:
        await release.wait()
        return DEVICES

    async def health(_request: Request) -> Health:
        return Health("ok", "1")

    app = build_app("a hive", "1", {HiveRoutes.DEVICES: devices, HiveRoutes.HEALTH: health})
    async with held(queen, silent_notifier, Times(monkeypatch), app=app) as (_, stream):
        slow = asyncio.create_task(stream.uplink.client.devices(job_id=None, timeout=5))
        await asyncio.gather(*(stream.uplink.client.health(timeout=5) for _ in range(30)))
        assert not slow.done()
        release.set()
        assert await slow == DEVICES
    assert queen.carriers == CARRIERS_MAX


async def test_a_queen_who_gave_up_is_asked_over_another_connection_next(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, gone = asyncio.Event(), asyncio.Event()

    async def devices(request: Request) -> Devices:
        begun.set()
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone.set()
        return DEVICES

    app = build_app("a hive", "1", {HiveRoutes.DEVICES: devices, HiveRoutes.HEALTH: _health})
    async with held(queen, silent_notifier, Times(monkeypatch), app=app) as (_, stream):
        asking = asyncio.create_task(stream.uplink.client.devices(job_id=None, timeout=5))
        await begun.wait()
        asking.cancel()
        await gone.wait()
        await stream.uplink.client.health(timeout=5)
    assert queen.carriers == 2


async def _health(_request: Request) -> Health:
    return Health("ok", "1")


# Connections


async def test_a_connection_that_cannot_be_had_is_logged_and_ends_nothing(
    queen: Queen,
    silent_notifier: Notifier,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(rbee.uplink.accept, "DIAL_TIMEOUT", 0.2)
    queen.carrier_refusal = HiveNotOnline("not now")

    async with held(queen, silent_notifier, Times(monkeypatch)) as (_, stream):
        with pytest.raises(TimedOut, match="was asked for a connection"):
            await stream.uplink.client.health(timeout=5)
        queen.carrier_refusal = None
        await stream.uplink.client.health(timeout=5)
    assert "dialling a connection that the queen asked for failed: not now" in caplog.text


async def test_a_connection_that_breaks_before_it_is_there_is_dialled_again_and_not_for_ever(
    queen: Queen,
    silent_notifier: Notifier,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(rbee.uplink.offer, "DIAL_AGAIN", (0.01, 0.01))
    monkeypatch.setattr(rbee.uplink.accept, "DIAL_TIMEOUT", 1.0)

    async with held(queen, silent_notifier, Times(monkeypatch)) as (_, stream):
        # A refusal is none of those, and would be the same again.
        queen.carrier_refusal, queen.drops = HiveNotOnline("not now"), 3
        with pytest.raises(TimedOut):
            await stream.uplink.client.health(timeout=5)
        assert (queen.carriers, queen.drops) == (3, 0)

        queen.carrier_refusal, queen.drops = None, 0
        await stream.uplink.client.health(timeout=5)
    assert "the queen asked for failed: the connection to 127.0.0.1" in caplog.text


async def test_a_queen_who_asks_for_connections_without_end_gets_so_many(
    queen: Queen,
    silent_notifier: Notifier,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with held(queen, silent_notifier, Times(monkeypatch)) as (_, stream):
        assert stream.uplink.transport is not None
        asked = (write_frame(Dial(f"{number:032x}")) for number in range(2 * DIALLED_MAX))
        stream.uplink.transport.write(b"".join(asked))
        await until(lambda: caplog.text.count("the queen asked for failed") == DIALLED_MAX)
        await stream.uplink.client.health(timeout=5)
    assert caplog.text.count("which is refused") == DIALLED_MAX


async def test_all_end_with_the_connection_that_it_keeps(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, cut = asyncio.Event(), asyncio.Event()

    async def devices(_request: Request) -> Devices:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            cut.set()
        return DEVICES

    app = build_app("a hive", "1", {HiveRoutes.DEVICES: devices})
    async with held(queen, silent_notifier, Times(monkeypatch), app=app) as (hive, stream):
        asking = asyncio.create_task(stream.uplink.client.devices(job_id=None, timeout=5))
        await begun.wait()
        hive.running.cancel()
        with pytest.raises(Disconnected):
            await asking
        await stream.ended.wait()
        await cut.wait()
        assert not hive.offer.is_open


# Settling


async def test_who_asked_a_hive_that_then_stops_has_its_answer(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = asyncio.Event()

    async def devices(_request: Request) -> Devices:
        told.set()
        return DEVICES

    app = build_app("a hive", "1", {HiveRoutes.DEVICES: devices})
    async with held(queen, silent_notifier, Times(monkeypatch), app=app) as (hive, stream):
        asking = asyncio.create_task(stream.uplink.client.devices(job_id=None, timeout=5))
        await told.wait()
        await hive.offer.settle()
        hive.running.cancel()
        assert await asking == DEVICES
        await stream.ended.wait()


@pytest.mark.parametrize("answers", [True, False])
async def test_settling_waits_for_answers_under_way_but_not_for_ever(
    queen: Queen, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch, answers: bool
) -> None:
    monkeypatch.setattr(rbee.uplink.offer, "SETTLE_TIMEOUT", 5.0 if answers else 0.05)

    entered, release = asyncio.Event(), asyncio.Event()

    async def devices(_request: Request) -> Devices:
        entered.set()
        await release.wait()
        return DEVICES

    app = build_app("a hive", "1", {HiveRoutes.DEVICES: devices})
    async with held(queen, silent_notifier, Times(monkeypatch), app=app) as (hive, stream):
        await hive.offer.settle()  # nothing is under way
        asking = asyncio.create_task(stream.uplink.client.devices(job_id=None, timeout=5))
        await entered.wait()
        settling = asyncio.create_task(hive.offer.settle())
        await asyncio.sleep(0)
        assert not settling.done()
        if answers:
            release.set()
        await asyncio.wait_for(settling, 2)
        if answers:
            await asyncio.wait_for(asking, 2)
        assert asking.done() == answers
        release.set()
        await asking
