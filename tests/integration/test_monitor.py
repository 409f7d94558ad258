"""rbeectl monitor over queens that come and go: nothing missed, nothing twice, and nobody woken."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import select
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

import rbee.keeper.monitor
from rbee.client.queen import QueenClient
from rbee.errors import NotPermitted, NotRunning, TimedOut
from rbee.keeper.monitor import Event, Monitor, QueenIs
from rbee.keeper.output.streams import OutputFailed
from rbee.keeper.work import Deadline
from rbee.narration import ADDING, HIVE_ONLINE
from rbee.scope import QUEEN_SOCKET_UNIT, QUEEN_UNIT
from rbee.systemd.unit import UnitState
from rbee.wire.events import FeedEvent, Gap
from tests.integration.house import PATIENCE, House, Queen, soon, until
from tests.unit.played_systemd import ACTIVATING, ACTIVE, DEACTIVATING, INACTIVE, KILLED, PlayedSystemd

LISTENING = UnitState("loaded", "active", "listening")
GIVEN_UP = UnitState("loaded", "failed", "failed", result="start-limit-hit", status_text="it cannot run")


class Watch:
    """A monitor in a thread of its own, beside a systemd that is played to it."""

    def __init__(self, path: Path, *, timeout: float = 10.0, **options: Any) -> None:
        self.systemd = PlayedSystemd(states={QUEEN_UNIT: INACTIVE, QUEEN_SOCKET_UNIT: LISTENING})
        self.ended: BaseException | None = None
        self._reader, self._writer = os.pipe()
        self._told: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
        self._client = QueenClient(path, timeout=timeout)
        self._options = {"left": Deadline(None).left, "output": self._writer} | options
        self._thread = threading.Thread(target=self._run, daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def _run(self) -> None:
        try:
            for told in Monitor(self.systemd, self._client, **self._options).events():  # type: ignore[arg-type]
                self._told.put(told)
        except BaseException as error:
            self.ended = error
        self._told.put(None)

    async def next(self) -> Event:
        """What it tells next."""
        told = await soon(asyncio.to_thread(self._told.get, timeout=PATIENCE))
        if told is None:
            assert self.ended is not None
            raise self.ended
        return told

    async def event(self) -> FeedEvent:
        told = await self.next()
        assert isinstance(told, FeedEvent), told
        return told

    async def to(self, name: str) -> list[FeedEvent]:
        """The events up to the first of this name; nothing else may come before."""
        events = [await self.event()]
        while events[-1].event != name:
            events.append(await self.event())
        return events

    @property
    def is_quiet(self) -> bool:
        return self._told.empty()

    async def hears(self) -> None:
        """Wait until it has heard all that systemd has signalled, and waits again."""
        await until(lambda: not self.systemd._signals and not select.select([self.systemd], [], [], 0)[0])
        await asyncio.sleep(0.05)

    async def end(self) -> None:
        os.close(self._reader)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join, PATIENCE)
        assert not self._thread.is_alive()
        os.close(self._writer)
        await self.systemd.close()


@contextlib.asynccontextmanager
async def watching(house: House, *, awake: bool = True, **options: Any) -> AsyncIterator[Watch]:
    watch = Watch(house.queen_path, **options)
    if awake:
        watch.systemd.states[QUEEN_UNIT] = ACTIVE
    watch.begin()
    try:
        yield watch
    finally:
        await watch.end()


def follow_each_other(events: list[FeedEvent]) -> bool:
    epoch, number = events[0].id.split("-")
    return [event.id for event in events] == [f"{epoch}-{int(number) + n}" for n in range(len(events))]


def nobody_connects(house: House) -> bool:
    """Has nobody spoken to the socket that systemd listens on?"""
    return not select.select([house.queen_socket], [], [], 0)[0]


# Beside a queen who is not awake


async def test_beside_a_sleeping_queen_it_says_so_once_and_speaks_to_nobody(house: House) -> None:
    async with watching(house, awake=False) as watch:
        assert await watch.next() == QueenIs("asleep", "queen is asleep, waiting until she wakes.")
        for _ in range(5):
            watch.systemd.becomes(QUEEN_UNIT, INACTIVE)  # a property of hers that is no matter
            await watch.hears()
        # On her way up she is not spoken to either.
        watch.systemd.becomes(QUEEN_UNIT, ACTIVATING)
        await watch.hears()
        assert nobody_connects(house)
        assert watch.is_quiet


async def test_who_waited_is_told_all_from_her_waking_on_and_nothing_from_before(house: House) -> None:
    first = await house.added()
    await house.systemd.queen_is_stopped(first)
    await asyncio.sleep(0.005)  # the times of the feed have milliseconds
    async with watching(house, awake=False) as watch:
        await watch.next()
        await house.wake_queen()
        watch.systemd.becomes(QUEEN_UNIT, ACTIVE)
        assert await watch.next() == QueenIs("awake", "queen is awake.")
        events = await watch.to("hive-online")

    assert events[0].event == "queen-started"
    assert follow_each_other(events)


async def test_off_and_failed_are_said_as_what_they_are_and_a_change_of_them_too(house: House) -> None:
    async with watching(house, awake=False) as watch:
        assert await watch.next() == QueenIs("asleep", "queen is asleep, waiting until she wakes.")
        watch.systemd.becomes(QUEEN_SOCKET_UNIT, INACTIVE)
        assert await watch.next() == QueenIs("off", "queen is off, waiting until she is turned on.")
        watch.systemd.becomes(QUEEN_UNIT, GIVEN_UP)
        assert await watch.next() == QueenIs(
            "failed", "queen has failed (it cannot run), waiting until she is started again."
        )
        assert nobody_connects(house)


async def test_a_shutdown_is_said_once_it_is_done(house: House) -> None:
    async with watching(house, awake=False) as watch:
        await watch.next()
        stop = watch.systemd.job(QUEEN_SOCKET_UNIT, "stop")
        watch.systemd.becomes(QUEEN_UNIT, INACTIVE)
        await watch.hears()
        watch.systemd.becomes(QUEEN_SOCKET_UNIT, INACTIVE)
        await watch.hears()
        assert watch.is_quiet
        watch.systemd.remove_job(stop)
        watch.systemd.becomes(QUEEN_SOCKET_UNIT, INACTIVE)

        assert (await watch.next()).state == "off"  # type: ignore[union-attr]


# Beside one who is


async def test_it_begins_with_the_last_events_and_goes_on_with_what_comes(house: House) -> None:
    queen = await house.added()
    async with watching(house, lines=3) as watch:
        events = [await watch.event() for _ in range(3)]
        queen.feed.narrate(ADDING, "now")
        events.append(await watch.event())

    assert events[2].event == "has-devices"
    assert events[3].text == "now"
    assert follow_each_other(events)


async def test_it_begins_with_all_that_is_kept_where_that_is_asked_for(house: House) -> None:
    queen = await house.added()
    async with watching(house, since_ms=0) as watch:
        events = await watch.to("has-devices")

    assert events[0].id.endswith("-1")
    assert events == list(queen.feed.last(1000).events)


async def test_of_one_hive_it_tells_its_events_only(house: House) -> None:
    queen = await house.added()
    async with watching(house, hive="elsewhere", lines=5) as watch:
        queen.feed.narrate(ADDING, "here", hive="localhost")
        queen.feed.narrate(ADDING, "nowhere")
        queen.feed.narrate(ADDING, "there", hive="elsewhere")
        assert (await watch.event()).text == "there"
    async with watching(house, hive="localhost", lines=2) as watch:
        assert [(await watch.event()).text for _ in range(2)][-1] == "here"


# Over her end


async def restarted(house: House, watch: Watch, queen: Queen) -> Queen:
    """systemctl restart queen-rbee."""
    stop = watch.systemd.job(QUEEN_UNIT, "restart")
    watch.systemd.becomes(QUEEN_UNIT, DEACTIVATING)
    await house.systemd.queen_is_stopped(queen)
    watch.systemd.becomes(QUEEN_UNIT, INACTIVE)
    watch.systemd.becomes(QUEEN_UNIT, ACTIVATING)
    second = await house.wake_queen()
    watch.systemd.becomes(QUEEN_UNIT, ACTIVE)
    watch.systemd.remove_job(stop)
    watch.systemd.becomes(QUEEN_UNIT, ACTIVE)
    return second


async def killed(house: House, watch: Watch, queen: Queen) -> Queen:
    """SIGKILL, and Restart=on-failure: systemd knows a moment later."""
    await house.systemd.queen_dies(queen)
    await asyncio.sleep(0.05)
    watch.systemd.becomes(QUEEN_UNIT, KILLED)
    second = await house.wake_queen()
    watch.systemd.becomes(QUEEN_UNIT, ACTIVE)
    return second


Ending = Callable[[House, Watch, Queen], Any]


@pytest.mark.parametrize("ends", [restarted, killed])
async def test_over_an_end_of_hers_nothing_is_missed_nothing_told_twice_and_nothing_said(
    house: House, ends: Ending
) -> None:
    queen = await house.added()
    async with watching(house, since_ms=0) as watch:
        events = await watch.to("has-devices")
        for _ in range(3):
            queen = await ends(house, watch, queen)
            events += await watch.to("hive-online")

    assert follow_each_other(events)
    assert [event.event for event in events].count("queen-started") == 4


async def test_over_a_sleep_it_says_that_she_sleeps_and_goes_on_after_it(house: House) -> None:
    queen = await house.added()
    async with watching(house, since_ms=0) as watch:
        events = await watch.to("has-devices")
        watch.systemd.becomes(QUEEN_UNIT, DEACTIVATING)
        await house.systemd.queen_is_stopped(queen)
        watch.systemd.becomes(QUEEN_UNIT, INACTIVE)
        while isinstance(told := await watch.next(), FeedEvent):
            events.append(told)
        assert told == QueenIs("asleep", "queen is asleep, waiting until she wakes.")
        assert nobody_connects(house)
        await house.wake_queen()
        watch.systemd.becomes(QUEEN_UNIT, ACTIVE)
        assert (await watch.next()).state == "awake"  # type: ignore[union-attr]
        events += await watch.to("hive-online")

    assert follow_each_other(events)


async def test_a_queen_who_is_about_to_be_stopped_is_not_spoken_to(house: House) -> None:
    """Her hive stops first, by After=, and she is active until then: who connects now wakes her."""
    async with watching(house, awake=False) as watch:
        await watch.next()
        stop = watch.systemd.job(QUEEN_UNIT, "stop")
        watch.systemd.becomes(QUEEN_UNIT, ACTIVE)
        await watch.hears()
        assert nobody_connects(house)
        watch.systemd.becomes(QUEEN_UNIT, INACTIVE)
        watch.systemd.remove_job(stop)
        await watch.hears()
        assert nobody_connects(house)


async def test_what_she_does_not_know_any_more_is_a_gap(house: House) -> None:
    queen = await house.added()
    async with watching(house, since_ms=0) as watch:
        last = (await watch.to("has-devices"))[-1]
        await house.systemd.queen_dies(queen)
        house.feed_path.unlink()
        watch.systemd.becomes(QUEEN_UNIT, KILLED)
        await house.wake_queen()
        watch.systemd.becomes(QUEEN_UNIT, ACTIVE)
        gap = await watch.next()
        events = await watch.to("hive-online")

    assert gap == Gap(last.id, events[0].id)
    assert events[0].event == "queen-started"


# What goes wrong


async def test_a_queen_who_does_not_answer_is_said_not_to_and_asked_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.keeper.monitor, "AFTERWARDS", 0.05)
    async with watching(house, lines=0, timeout=0.1) as watch:
        # systemd says that she is active, and nobody accepts.
        silent = await watch.next()
        await asyncio.sleep(0.5)
        assert watch.is_quiet  # it is said once
        queen = await house.wake_queen()
        assert await watch.next() == QueenIs("awake", "queen is awake.")
        queen.feed.narrate(ADDING, "hello")
        assert (await watch.event()).text == "hello"

    assert silent == QueenIs("silent", "queen does not answer, retrying: the queen was silent for 0.1 s")


async def test_who_may_not_speak_to_her_is_told_so(house: House) -> None:
    def refuse(*_asked: object) -> None:
        raise NotPermitted("the user rbee-hive may send heartbeats only")

    house.admission = refuse  # type: ignore[assignment]
    await house.wake_queen()
    async with watching(house) as watch:
        with pytest.raises(NotPermitted):
            await watch.next()


async def test_a_systemd_that_does_not_answer_for_a_while_is_asked_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.keeper.monitor, "SETTLED", 0.05)
    queen = await house.wake_queen()

    await asyncio.sleep(0.005)  # the times of the feed have milliseconds

    def reloads(_unit: str) -> bool:
        raise TimedOut("asking for queen-rbee.service: no answer within 3 s")

    async with watching(house, awake=False) as watch:
        await watch.next()
        watch.systemd.has_job = reloads  # type: ignore[method-assign]
        watch.systemd.becomes(QUEEN_UNIT, ACTIVE)
        await watch.hears()
        assert (watch.is_quiet, watch.ended) == (True, None)
        del watch.systemd.has_job
        assert await watch.next() == QueenIs("awake", "queen is awake.")
        queen.feed.narrate(ADDING, "hello")
        assert (await watch.event()).text == "hello"


async def test_where_her_socket_is_gone_and_she_is_awake_it_ends(house: House) -> None:
    house.queen_path.unlink()
    async with watching(house) as watch:
        with pytest.raises(NotRunning):
            await watch.next()


async def test_a_deadline_of_the_persons_ends_it_wherever_it_waits(house: House) -> None:
    queen = await house.wake_queen()
    async with watching(house, awake=False, left=Deadline(0.2).left) as asleep:
        await asleep.next()
        with pytest.raises(TimedOut, match="of --timeout"):
            await asleep.next()
    async with watching(house, lines=0, left=Deadline(0.5).left) as awake:
        await until(lambda: queen.feed.limits.taken == 1)
        with pytest.raises(TimedOut, match="of --timeout"):
            await awake.next()


async def test_it_ends_with_whoever_reads_what_it_prints(house: House) -> None:
    queen = await house.wake_queen()
    async with watching(house, awake=False) as asleep:
        await asleep.next()
    async with watching(house, lines=0) as awake:
        await until(lambda: queen.feed.limits.taken == 1)

    assert isinstance(asleep.ended, OutputFailed)
    assert isinstance(awake.ended, OutputFailed)
    await until(lambda: queen.feed.limits.taken == 0)


async def test_an_event_of_a_newer_queen_says_what_is_not_known_of_it_and_ends_nothing(house: House) -> None:
    queen = await house.wake_queen()
    async with watching(house, lines=0) as watch:
        await until(lambda: queen.feed.limits.taken == 1)
        queen.feed.narrate(HIVE_ONLINE._replace(speaker="bee worker"), "hello")  # type: ignore[arg-type]
        queen.feed.narrate(HIVE_ONLINE, "and on")
        odd, after = await watch.next(), await watch.next()

    assert isinstance(odd, FeedEvent)
    assert odd.text == "hello"
    assert odd.problem is not None
    assert odd.problem.startswith("speaker must be one of")
    assert odd.problem.endswith('and is "bee worker"')
    assert isinstance(after, FeedEvent)
    assert (after.text, after.problem) == ("and on", None)
