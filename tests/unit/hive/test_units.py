"""The hive's connection to systemd, which is open only while something is followed."""

from __future__ import annotations

import asyncio
import os
from typing import Any, cast

import pytest

from rbee.errors import Stopping, Unreachable
from rbee.hive.units import SystemdUnits
from rbee.scope import SYSTEM, Scope
from rbee.systemd.control import HiveControl, NoAnswer
from rbee.systemd.journal import Entry, Tail
from tests.unit.played_systemd import ACTIVE, INACTIVE, NoProgram, PlayedSystemd
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(5)

BEE, FETCH = "rbee-worker@bee-1.service", "rbee-fetch@1.service"


class Systemd(PlayedSystemd):
    """systemd behind a bus that can be opened again; `opened` counts how often it was."""

    opened = 0
    is_open = False

    def __call__(self, scope: Scope) -> Any:
        return self

    def __enter__(self) -> Any:
        self.opened += 1
        self.is_open = True
        return self

    def __exit__(self, *_error: object) -> None:
        self.is_open = False

    def prepare(self) -> None:
        """Nothing is connected ahead."""


async def test_the_bus_is_open_while_a_unit_is_followed_and_heard_of_changes() -> None:
    systemd = Systemd()
    units = SystemdUnits(SYSTEM, open_bus=systemd, control=cast(HiveControl, systemd))
    changed = units.follow(BEE)
    assert not systemd.is_open  # until it is used
    await units.start(BEE)
    assert (await units.state(BEE), systemd.is_open, systemd.opened) == (ACTIVE, True, 1)
    await asyncio.wait_for(changed.wait(), 1)
    changed.clear()
    systemd.becomes(BEE, INACTIVE)
    await asyncio.wait_for(changed.wait(), 1)
    await units.stop(BEE)
    await units.reset_failed(BEE)
    assert systemd.asked == [("start", BEE), ("stop", BEE), ("reset-failed", BEE)]

    units.unfollow(BEE)
    assert not systemd.is_open
    units.close()
    await systemd.close()


async def test_a_bus_that_is_lost_is_opened_again_and_everybody_looks() -> None:
    systemd = Systemd()
    units = SystemdUnits(SYSTEM, open_bus=systemd, control=cast(HiveControl, systemd))
    changed = units.follow(BEE)
    heard: list[str] = []
    units.on_unit_changed(FETCH, lambda: heard.append(FETCH))
    assert not await units.has_job(FETCH)

    def broken() -> None:
        raise Unreachable("the bus is gone")

    systemd.pump = broken  # type: ignore[method-assign]
    systemd.becomes(BEE, ACTIVE)
    await asyncio.wait_for(changed.wait(), 1)
    del systemd.pump
    assert (heard, systemd.is_open) == ([FETCH], False)
    changed.clear()
    systemd.hang_up()
    assert await units.state(BEE) == ACTIVE
    systemd.becomes(BEE, INACTIVE)
    systemd.becomes(FETCH, INACTIVE)
    await asyncio.wait_for(changed.wait(), 1)
    assert (heard, systemd.opened) == ([FETCH, FETCH], 2)
    units.unfollow(BEE)
    assert systemd.is_open  # for the fetch
    units.close()
    await systemd.close()


async def test_what_cannot_be_asked_for_as_rbee_is_being_stopped_is_refused_as_such(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    systemd = Systemd()
    units = SystemdUnits(SYSTEM, open_bus=systemd, control=cast(HiveControl, systemd))

    async def ask(verb: str, unit: str) -> str:
        raise NoAnswer("Connection reset by peer")

    monkeypatch.setattr(systemd, "ask", ask)
    with pytest.raises(NoAnswer):
        await units.ask("start", FETCH)
    systemd.job(systemd.socket_unit, "stop")
    with pytest.raises(Stopping):
        await units.ask("start", FETCH)
    units.close()
    await systemd.close()


async def test_after_many_units_the_connection_is_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbee.hive.units.MATCHES_MAX", 3)
    systemd = Systemd()
    units = SystemdUnits(SYSTEM, open_bus=systemd, control=cast(HiveControl, systemd))
    units.follow(BEE)
    for number in range(12):
        name = f"rbee-worker@x-{number}.service"
        units.follow(name)
        await units.state(name)
        units.unfollow(name)
    assert 1 < systemd.opened < 5
    units.close()
    await systemd.close()


async def test_a_job_that_is_awaited_keeps_the_bus_open() -> None:
    is_over = asyncio.Event()

    class Stubborn(NoProgram):
        async def stop(self) -> None:
            await is_over.wait()

    systemd = Systemd({BEE: ACTIVE})
    systemd.programs[BEE] = Stubborn()
    units = SystemdUnits(SYSTEM, open_bus=systemd, control=cast(HiveControl, systemd))
    stopping = asyncio.ensure_future(units.stop(BEE))
    await until(lambda: bool(systemd.asked))
    units.follow(FETCH)
    await units.state(FETCH)
    units.unfollow(FETCH)
    assert (systemd.is_open, systemd.opened) == (True, 1)
    is_over.set()
    await stopping
    assert not systemd.is_open
    await systemd.close()


class Slow(NoProgram):
    """A unit that starts and stops when it may."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def start(self) -> None:
        await self.may_end.wait()

    async def stop(self) -> None:
        await self.may_end.wait()


async def follow_many(units: SystemdUnits, number: int) -> None:
    for one in range(number):
        name = f"rbee-worker@x-{one}.service"
        units.follow(name)
        await units.state(name)
        units.unfollow(name)


async def test_many_units_end_no_connection_on_which_a_job_is_awaited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rbee.hive.units.MATCHES_MAX", 3)
    systemd, slow = Systemd(), Slow()
    systemd.programs[BEE] = slow
    units = SystemdUnits(SYSTEM, open_bus=systemd, control=cast(HiveControl, systemd))
    units.follow(BEE)
    starting = asyncio.ensure_future(units.start(BEE))
    await until(lambda: bool(systemd.asked))
    await follow_many(units, 12)
    assert systemd.opened == 1
    slow.may_end.set()
    await starting

    await units.state(BEE)
    assert systemd.opened == 2
    units.close()
    await systemd.close()


async def test_after_another_connection_everybody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rbee.hive.units.MATCHES_MAX", 3)
    systemd = Systemd()
    units = SystemdUnits(SYSTEM, open_bus=systemd, control=cast(HiveControl, systemd))
    changed = units.follow(BEE)
    heard: list[str] = []
    units.on_unit_changed(FETCH, lambda: heard.append(FETCH))
    await follow_many(units, 4)
    assert (systemd.opened, changed.is_set(), heard) == (1, False, [])
    systemd.becomes(BEE, ACTIVE)  # a signal that is lost with the connection
    systemd.hang_up()

    await units.state(BEE)

    assert (systemd.opened, changed.is_set(), heard) == (2, True, [FETCH])
    units.close()
    await systemd.close()


@pytest.mark.parametrize("is_lost", [True, False])
async def test_a_job_whose_end_is_lost_with_the_connection_is_not_awaited(
    is_lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.hive.units.MATCHES_MAX", 3)
    monkeypatch.setattr("rbee.hive.units.MATCHES_MOST", 5)
    other = "rbee-worker@bee-2.service"
    systemd, slow = Systemd({other: ACTIVE}), Slow()
    systemd.programs[BEE] = systemd.programs[other] = slow
    units = SystemdUnits(SYSTEM, open_bus=systemd, control=cast(HiveControl, systemd))
    units.follow(BEE)
    starting = asyncio.ensure_future(units.start(BEE))
    stopping = asyncio.ensure_future(units.stop(other))
    await until(lambda: len(systemd.asked) == 2)
    systemd.hang_up()
    if is_lost:

        def broken() -> None:
            del systemd.pump
            raise Unreachable("the bus is gone")

        systemd.pump = broken  # type: ignore[method-assign]
        os.eventfd_write(systemd.fileno(), 1)
    else:
        await follow_many(units, 7)
    with pytest.raises(Unreachable, match="lost before the start of rbee-worker@bee-1.service had ended"):
        await starting

    await until(lambda: systemd.asked.count(("stop", other)) == 2)  # as its end was not heard
    slow.may_end.set()
    await stopping
    assert systemd.opened == 2
    units.close()
    await systemd.close()


async def test_a_log_is_read_as_its_entries() -> None:
    class Logs(Systemd):
        async def log(self, unit: str, time: tuple[int, int] | None = None) -> list[str]:
            assert time in (None, (6, 8))
            return ['{"MESSAGE": "one", "__REALTIME_TIMESTAMP": "7"}'] * 2 if unit == BEE else []

    units = SystemdUnits(SYSTEM, control=cast(HiveControl, Logs()))

    assert await units.log(BEE) == Tail((Entry("one", 6, 7, ""),) * 2)
    assert await units.log(FETCH, (6.9, 7.1)) == Tail()
