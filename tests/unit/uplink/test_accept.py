"""Hives on other machines as the queen reaches them: over what they dial, and never where they are not."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

import rbee.uplink.accept
from rbee.errors import (
    ClonedHive,
    Disconnected,
    HiveNotOnline,
    NotPermitted,
    TimedOut,
    TooLarge,
    TooMany,
    Unreachable,
)
from rbee.uplink.accept import ASKED_AT_ONCE, CARRIERS_MAX, Uplink, Uplinks
from rbee.uplink.frames import FRAME_LIMIT, Dial, Goodbye, write_frame
from rbee.wire.daemon import Problem
from rbee.wire.heartbeats import Heartbeat, HeartbeatAck, HiveHealth
from rbee.wire.routes import HiveRoutes
from tests.unit.played_hive import PlayedHive
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)


FIRST, SECOND = "1" * 32, "2" * 32
BEAT = Heartbeat("gpu1", "2026-01-31T12:00:00Z", (), FIRST)


async def taken(beat: Heartbeat) -> HeartbeatAck:
    return HeartbeatAck("ok", 15_000)


def uplink(name: str = "gpu1", instance: str = FIRST, address: str = "10.0.0.1") -> Uplink:
    return Uplink(name, instance, address, taken)


def hive(*names: str, **more: Any) -> PlayedHive:
    return PlayedHive(uplink(*names, **more))


@pytest.fixture
def closed() -> list[Uplink]:
    return []


# What she asks


async def test_what_is_asked_goes_over_a_connection_that_the_hive_dials_and_is_kept() -> None:
    gpu1 = hive()
    for _ in range(3):
        assert await gpu1.uplink.client.health(timeout=5) == HiveHealth("ok", "1")
    assert [(method, path) for method, path, _ in gpu1.asked] == [("GET", "/health")] * 3
    assert (len(gpu1.pipes), [type(frame) for frame in gpu1.said]) == (1, [Dial])


async def test_more_are_dialled_as_they_are_taken_up_to_a_bound_and_the_rest_waits() -> None:
    gpu1 = hive()
    asking = [gpu1.uplink.client.health(timeout=5) for _ in range(3 * CARRIERS_MAX)]
    assert set(await asyncio.gather(*asking)) == {HiveHealth("ok", "1")}
    assert len(gpu1.pipes) == CARRIERS_MAX


async def test_a_connection_that_nothing_is_asked_over_is_closed_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rbee.uplink.accept, "CARRIER_IDLE", 0.02)

    gpu1 = hive()
    await gpu1.uplink.client.health(timeout=5)
    (pipe,) = gpu1.pipes
    await until(pipe.is_closing)
    await gpu1.uplink.client.health(timeout=5)
    assert len(gpu1.pipes) == 2


async def test_one_that_the_hive_has_closed_is_not_used_again() -> None:
    gpu1 = hive()
    await gpu1.uplink.client.health(timeout=5)
    gpu1.pipes[0].abort()
    await asyncio.sleep(0)
    assert await gpu1.uplink.client.health(timeout=5) == HiveHealth("ok", "1")
    assert len(gpu1.pipes) == 2


async def test_a_refusal_of_the_hive_s_is_raised_as_it_is() -> None:
    gpu1 = hive()
    gpu1.answers = lambda method, path: (413, json.dumps(TooLarge("so large").to_problem()).encode())
    with pytest.raises(TooLarge, match="so large"):
        await gpu1.uplink.ask(HiveRoutes.HEALTH, timeout=5)


async def test_a_method_and_a_body_go_down_as_they_do_to_the_local_hive() -> None:
    gpu1 = hive()
    for method in ("POST", "DELETE"):
        route = replace(HiveRoutes.HEALTH, method=method)  # type: ignore[arg-type]
        assert await gpu1.uplink.ask(route, {"a": "body"}, timeout=5) == HiveHealth("ok", "1")
    assert [method for method, _, _ in gpu1.asked] == ["POST", "DELETE"]
    assert all(b"Content-Length: 13" in request for *_, request in gpu1.asked)


async def test_an_answer_without_an_end_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbee.client.link.ANSWER_LIMIT", 10_000)

    gpu1 = hive()
    gpu1.answers = lambda method, path: (200, b" " * 10_001)
    with pytest.raises(Unreachable, match="the answer from the beehive gpu1 is larger than 10000 bytes"):
        await gpu1.uplink.ask(HiveRoutes.HEALTH, timeout=5)
    await until(gpu1.pipes[0].is_closing)


async def test_who_asks_a_hive_that_does_not_dial_hears_which_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rbee.uplink.accept, "DIAL_TIMEOUT", 0.02)

    gpu1 = hive()
    gpu1.dials = False
    with pytest.raises(
        TimedOut, match=r"gpu1 was asked for a connection, and did not dial one within 0\.02 s"
    ) as said:
        await gpu1.uplink.ask(HiveRoutes.HEALTH, timeout=5)
    assert (said.value.hint or "").startswith("On gpu1: ")
    (asked,) = gpu1.said
    assert isinstance(asked, Dial)
    # It comes, and nobody waits for it any more.
    with pytest.raises(HiveNotOnline, match="no request waits for this connection"):
        gpu1.uplink.take_carrier(asked.id)


async def test_who_asks_hears_of_silence_and_of_an_end() -> None:
    gpu1 = hive()
    gpu1.answers = lambda method, path: (200, b"")
    gpu1.lives = False
    with pytest.raises(TimedOut, match=r"gpu1 did not answer within 0\.01 s"):
        await gpu1.uplink.ask(HiveRoutes.HEALTH, timeout=0.01)

    gpu1 = hive()
    gpu1.dials = False
    waiting = asyncio.create_task(gpu1.uplink.ask(HiveRoutes.HEALTH, timeout=5))
    await until(lambda: len(gpu1.said) == 1)
    gpu1.dials = True

    def go(method: str, path: str) -> tuple[int, bytes]:
        gpu1.go()
        return 200, b" "

    gpu1.answers = go
    with pytest.raises(Disconnected, match="the connection of the beehive gpu1 closed before"):
        await gpu1.uplink.ask(HiveRoutes.HEALTH, timeout=5)
    with pytest.raises(Disconnected, match="the connection of the beehive gpu1 closed before"):
        await waiting
    with pytest.raises(Disconnected, match="has closed"):
        await gpu1.uplink.ask(HiveRoutes.HEALTH, timeout=5)
    await asyncio.sleep(0)
    assert all(pipe.is_closing() for pipe in gpu1.pipes)


async def test_a_connection_that_comes_when_who_asked_has_gone_is_closed() -> None:
    gpu1 = hive()
    gpu1.dials = False
    asking = asyncio.create_task(gpu1.uplink.ask(HiveRoutes.HEALTH, timeout=5))
    await until(lambda: len(gpu1.said) == 1)
    (asked,) = gpu1.said
    assert isinstance(asked, Dial)
    gpu1.dial(asked.id)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await until(gpu1.pipes[0].is_closing)
    assert await gpu1.uplink._turns.acquire()


async def test_as_many_wait_for_answers_as_may() -> None:
    gpu1 = hive()
    gpu1.dials = False
    asking = [asyncio.create_task(gpu1.uplink.ask(HiveRoutes.HEALTH)) for _ in range(ASKED_AT_ONCE)]
    await asyncio.sleep(0)
    with pytest.raises(TooMany, match="wait for answers"):
        await gpu1.uplink.ask(HiveRoutes.HEALTH)
    gpu1.uplink.abort()
    for task in asking:
        with pytest.raises(Disconnected):
            await task


async def test_what_is_asked_while_a_hive_connects_is_asked_once_it_has() -> None:
    connecting = uplink()
    asking = asyncio.create_task(connecting.client.health(timeout=5))
    await asyncio.sleep(0)
    PlayedHive(connecting)
    assert await asking == HiveHealth("ok", "1")


# What it says


async def test_a_beat_is_answered_by_its_ack_or_by_a_refusal() -> None:
    gpu1 = hive()
    gpu1.beat(BEAT)
    await until(lambda: gpu1.said == [HeartbeatAck("ok", 15_000)])

    async def refuse(beat: Heartbeat) -> HeartbeatAck:
        raise NotPermitted("not you")

    gpu1 = PlayedHive(Uplink("gpu1", FIRST, "10.0.0.1", refuse))
    gpu1.beat(BEAT)
    await until(lambda: len(gpu1.said) == 1)
    (refusal,) = gpu1.said
    assert isinstance(refusal, Problem)
    assert (refusal.status, refusal.detail) == (403, "not you")


async def test_a_last_beat_is_taken_before_the_end_of_its_connection_is_told() -> None:
    told: list[str] = []

    async def takes_a_while(beat: Heartbeat) -> HeartbeatAck:
        await asyncio.sleep(0.01)
        told.append(beat.state)
        return HeartbeatAck("ok", 15_000)

    gone = PlayedHive(Uplink("gpu1", FIRST, "10.0.0.1", takes_a_while)).uplink
    gone.when_ended(lambda _: told.append("ended"))
    gone.received(BEAT._replace(state="stopping"))
    gone.connection_lost(None)
    await until(lambda: told == ["stopping", "ended"])


async def test_a_beat_that_fails_by_an_internal_error_is_logged_and_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(beat: Heartbeat) -> HeartbeatAck:
        raise ZeroDivisionError("a bug")

    gpu1 = PlayedHive(Uplink("gpu1", FIRST, "10.0.0.1", fail))
    gpu1.beat(BEAT)
    await until(lambda: len(gpu1.said) == 1)
    (refusal,) = gpu1.said
    assert isinstance(refusal, Problem)
    assert refusal.status == 500
    assert "ZeroDivisionError: a bug" in caplog.text


@pytest.mark.parametrize(
    ("sent", "told"),
    [
        (b"x" * (FRAME_LIMIT + 1), "a frame is larger than 262144 bytes"),
        (b"\n", "the frame is not JSON"),
        (b"[" * 100_000 + b"\n", "the frame is not JSON"),
        (b"\xff\n", "the frame is not JSON"),
        (b"[]\n", "a frame must be a JSON object with one member"),
        (b'{"beat": {}, "ack": {}}\n', "a frame must be a JSON object with one member"),
        (b'{"sing": {}}\n', "there is no frame of the kind 'sing'"),
        (b'{"beat": {}}\n', "beat.hive_id"),
        (write_frame(Goodbye()), "a hive may send beats only"),
        (2 * write_frame(BEAT), "a hive must wait for the answer to a beat"),
    ],
    ids=[
        "large",
        "empty",
        "deep",
        "no text",
        "list",
        "two",
        "unknown",
        "bad beat",
        "not a hive's",
        "two beats",
    ],
)
async def test_what_is_not_as_agreed_ends_the_connection_with_a_word_of_why(sent: bytes, told: str) -> None:
    ended: list[Uplink] = []
    gpu1 = hive()
    gpu1.uplink.when_ended(ended.append)
    for start in range(0, len(sent), 10_000):
        gpu1.uplink.data_received(sent[start : start + 10_000])
    refusal = gpu1.said[0]
    assert isinstance(refusal, Problem)
    assert told in refusal.detail
    await until(lambda: ended == [gpu1.uplink])


async def test_a_frame_as_large_as_the_limit_is_read_in_whatever_pieces_it_comes() -> None:
    gpu1 = hive()
    sent = write_frame(BEAT)[:-1]
    sent = sent[:1] + b" " * (FRAME_LIMIT - len(sent)) + sent[1:] + b"\n"
    for start in range(0, len(sent), 9_999):
        gpu1.uplink.data_received(sent[start : start + 9_999])
    await until(lambda: gpu1.said == [HeartbeatAck("ok", 15_000)])


# All of them


async def test_a_hive_s_end_is_told_once_and_not_where_another_connection_of_its_has_come(
    closed: list[Uplink],
) -> None:
    uplinks = Uplinks(closed.append)
    first, second = hive(), hive()
    await uplinks.take(first.uplink)
    # The same process, whose first connection broke: nobody is asked whether the old one lives.
    await uplinks.take(second.uplink)
    assert (first.control.is_aborted, first.said, closed) == (True, [], [])
    assert uplinks.find("gpu1") is second.uplink

    uplinks.drop("gpu1")
    uplinks.drop("gpu1")
    await asyncio.sleep(0)
    assert (second.control.is_aborted, closed) == (True, [second.uplink])
    assert uplinks.find("gpu1") is None


async def test_another_process_takes_the_place_of_a_dead_one_and_not_of_one_that_lives(
    closed: list[Uplink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.uplink.accept, "PROBE_TIMEOUT", 0.05)

    uplinks = Uplinks(closed.append)
    first, copy = hive(), uplink(instance=SECOND, address="10.0.0.2")
    await uplinks.take(first.uplink)
    with pytest.raises(
        ClonedHive, match=r"gpu1 is connected from 10\.0\.0\.1 already, and now also .* 10\.0\.0\.2"
    ) as said:
        await uplinks.take(copy)
    assert "/etc/machine-id" in (said.value.hint or "")
    assert uplinks.find("gpu1") is first.uplink
    with pytest.raises(ClonedHive):
        await uplinks.check_free("gpu1", "10.0.0.3")
    await uplinks.check_free("gpu2", "10.0.0.3")

    first.lives = False
    await uplinks.take(copy)
    assert (first.control.is_aborted, closed) == (True, [])
    assert uplinks.find("gpu1") is copy


async def test_of_two_copies_that_come_while_a_dead_one_is_probed_one_is_refused(
    closed: list[Uplink], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.uplink.accept, "PROBE_TIMEOUT", 0.05)

    uplinks = Uplinks(closed.append)
    dead, one, other = hive(), hive(instance=SECOND), hive(instance="3" * 32)
    await uplinks.take(dead.uplink)
    dead.lives = False
    taken = await asyncio.gather(uplinks.take(one.uplink), uplinks.take(other.uplink), return_exceptions=True)

    assert sorted(type(error).__name__ for error in taken) == ["ClonedHive", "NoneType"]
    assert uplinks.find("gpu1") is (one if taken[0] is None else other).uplink


async def test_who_waits_for_a_hive_has_it_as_soon_as_it_comes(closed: list[Uplink]) -> None:
    uplinks = Uplinks(closed.append)
    with pytest.raises(HiveNotOnline, match="gpu1 is not connected"):
        await uplinks.wait("gpu1", timeout=0.01)
    waiting = [asyncio.create_task(uplinks.wait("gpu1", timeout=5)) for _ in range(3)]
    await asyncio.sleep(0)
    gpu1 = uplink()
    await uplinks.take(gpu1)
    assert await asyncio.gather(*waiting) == [gpu1] * 3
    assert await uplinks.wait("gpu1", timeout=0) is gpu1


async def test_who_waits_on_after_another_gave_up_has_the_hive_as_soon_as_it_comes(
    closed: list[Uplink],
) -> None:
    uplinks = Uplinks(closed.append)
    first = asyncio.create_task(uplinks.wait("gpu1", timeout=0.01))
    second = asyncio.create_task(uplinks.wait("gpu1", timeout=60))
    await asyncio.gather(first, return_exceptions=True)
    gpu1 = uplink()
    await uplinks.take(gpu1)
    assert await asyncio.wait_for(second, 5) is gpu1


async def test_all_are_told_goodbye_when_the_queen_goes(closed: list[Uplink]) -> None:
    uplinks = Uplinks(closed.append)
    hives = [hive(f"gpu{n}") for n in range(3)]
    for one in hives:
        await uplinks.take(one.uplink)
    uplinks.close()
    assert all(one.said == [Goodbye()] and not one.control.is_aborted for one in hives)
    await until(lambda: all(one.control.is_closing() for one in hives))
    assert uplinks.all() == []


async def test_one_that_goes_before_its_connection_is_there_has_ended(closed: list[Uplink]) -> None:
    uplinks = Uplinks(closed.append)
    gone = uplink()
    await uplinks.take(gone)
    gone.connection_lost(None)
    assert (uplinks.all(), closed) == ([], [gone])
    # And one that was replaced before is closed when it comes.
    first, second = uplink(), uplink()
    await uplinks.take(first)
    await uplinks.take(second)
    assert PlayedHive(first).control.is_closing()
