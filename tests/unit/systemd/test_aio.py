"""The queen's bus in her event loop, on a systemd that is played at the edge."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from rbee.errors import NotPermitted, RbeeError, Stopping, TimedOut, UnitFailed, Unreachable
from rbee.scope import CONTROL_SOCKET_UNIT, HIVE_UNIT, QUEEN_UNIT, TARGET
from rbee.systemd.aio import AsyncBus
from rbee.systemd.control import NoAnswer
from rbee.systemd.unit import UnitState
from tests.unit.played_systemd import ACTIVE, INACTIVE, DiedError, NoProgram, PlayedSystemd

pytestmark = pytest.mark.deadline(5)


LOST: list[RbeeError] = []


@asynccontextmanager
async def a_bus() -> AsyncIterator[tuple[AsyncBus, PlayedSystemd]]:
    systemd = PlayedSystemd()
    bus = AsyncBus(systemd, systemd, lost=LOST.append)  # type: ignore[arg-type]
    bus.attach()
    try:
        yield bus, systemd
    finally:
        bus.detach()
        await systemd.close()


async def test_a_start_is_awaited_until_its_job_is_done() -> None:
    async with a_bus() as (bus, systemd):
        is_up = asyncio.Event()

        class Slow(NoProgram):
            async def start(self) -> None:
                await is_up.wait()

        systemd.programs[HIVE_UNIT] = Slow()
        starting = asyncio.ensure_future(bus.start(HIVE_UNIT, timeout=5))
        done, _ = await asyncio.wait({starting}, timeout=0.02)
        assert not done
        is_up.set()
        await starting
        assert await bus.state(HIVE_UNIT) == ACTIVE
        await bus.stop(HIVE_UNIT, timeout=5)
        assert await bus.state(HIVE_UNIT) == INACTIVE
        assert systemd.asked == [("start", HIVE_UNIT), ("stop", HIVE_UNIT)]


async def test_a_job_that_is_over_before_anybody_knows_its_name_is_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_bus() as (bus, systemd):

        async def ask(verb: str, unit: str) -> str:
            systemd.remove_job(systemd.job(HIVE_UNIT, "stop"))
            job = systemd.job(HIVE_UNIT, "start")
            systemd.remove_job(job, "failed")
            systemd.pump()
            return job

        monkeypatch.setattr(systemd, "ask", ask)
        with pytest.raises(UnitFailed, match="its job ended as 'failed'"):
            await bus.start(HIVE_UNIT, timeout=5)


LATE = "no answer within 3 s"


async def test_what_is_read_is_read_again_while_systemd_is_silent_and_not_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    silences = [TimedOut(LATE)]

    def state(unit: str) -> UnitState:
        if silences:
            raise silences.pop()
        return ACTIVE

    async with a_bus() as (bus, systemd):
        monkeypatch.setattr(systemd, "state", state)
        assert await bus.state(HIVE_UNIT) == ACTIVE
        monkeypatch.setattr("rbee.systemd.aio.READ_TIMEOUT", 0)
        silences.append(TimedOut(LATE))
        with pytest.raises(TimedOut, match=LATE):
            await bus.state(HIVE_UNIT)


async def test_two_who_wait_for_one_job_both_hear_of_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_bus() as (bus, systemd):
        job = systemd.job(HIVE_UNIT, "start")

        async def ask(verb: str, unit: str) -> str:
            return job

        monkeypatch.setattr(systemd, "ask", ask)
        waiting = [asyncio.ensure_future(bus.start(HIVE_UNIT, timeout=5)) for _ in range(2)]
        await asyncio.sleep(0)
        systemd.remove_job(job)
        await asyncio.gather(*waiting)


async def test_a_job_that_fails_is_told_with_the_unit_s_own_words() -> None:
    async with a_bus() as (bus, systemd):

        class Broken(NoProgram):
            async def start(self) -> None:
                raise DiedError(
                    UnitState("loaded", "failed", "failed", result="exit-code", status_text="no config")
                )

        systemd.programs[HIVE_UNIT] = Broken()
        with pytest.raises(UnitFailed, match="its result is 'exit-code', it said: no config"):
            await bus.start(HIVE_UNIT, timeout=5)


async def test_a_job_that_does_not_end_is_not_waited_for() -> None:
    async with a_bus() as (bus, systemd):

        class Hanging(NoProgram):
            async def start(self) -> None:
                await asyncio.Event().wait()

        systemd.programs[HIVE_UNIT] = Hanging()
        with pytest.raises(TimedOut, match=r"rbee-hive.service was not done after 0.05 s") as caught:
            await bus.start(HIVE_UNIT, timeout=0.05)
        assert caught.value.hint == "systemctl status rbee-hive.service"


async def test_jobs_at_once_do_not_mix_up_their_results() -> None:
    async with a_bus() as (bus, systemd):

        class Broken(NoProgram):
            async def start(self) -> None:
                raise DiedError(UnitState("loaded", "failed", "failed", result="exit-code"))

        systemd.programs["b.service"] = Broken()
        results = await asyncio.gather(
            *(bus.start(unit, timeout=5) for unit in ("a.service", "b.service", "c.service")),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [type(None), UnitFailed, type(None)]


async def test_a_refusal_comes_at_once() -> None:
    async with a_bus() as (bus, systemd):
        systemd.refusal = NotPermitted("systemd does not let you do this")
        with pytest.raises(NotPermitted):
            await bus.start(HIVE_UNIT, timeout=5)
        systemd.refusal = NotPermitted("systemd does not let you do this")
        with pytest.raises(NotPermitted):
            await bus.ask_stop(TARGET)


@pytest.mark.parametrize("unit", [HIVE_UNIT, QUEEN_UNIT])
async def test_a_start_does_not_undo_a_stop_that_somebody_asked_for(unit: str) -> None:
    async with a_bus() as (bus, systemd):
        systemd.job(unit, "stop")
        with pytest.raises(Stopping):
            await bus.start(HIVE_UNIT, timeout=5)
        assert await bus.state(HIVE_UNIT) == INACTIVE


async def test_a_socket_of_requests_that_is_being_stopped_is_a_stop_of_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with a_bus() as (bus, systemd):

        async def ask(verb: str, unit: str) -> str:
            raise NoAnswer("Connection reset by peer")

        monkeypatch.setattr(systemd, "ask", ask)
        with pytest.raises(NoAnswer):
            await bus.start(HIVE_UNIT, timeout=5)
        with pytest.raises(NoAnswer):
            await bus.ask_stop(TARGET)
        systemd.job(CONTROL_SOCKET_UNIT, "stop")
        with pytest.raises(Stopping, match="no start of rbee-hive.service: rbee is being stopped"):
            await bus.start(HIVE_UNIT, timeout=5)
        with pytest.raises(Stopping):
            await bus.ask_stop(TARGET)
        systemd.job(TARGET, "stop")
        await bus.ask_stop(TARGET)  # which is being done


async def test_a_unit_s_changes_are_heard_without_asking() -> None:
    async with a_bus() as (bus, systemd):
        heard = asyncio.Event()
        bus.on_unit_changed(HIVE_UNIT, heard.set)
        systemd.becomes(HIVE_UNIT, ACTIVE)
        await asyncio.wait_for(heard.wait(), 5)


async def test_a_signal_that_a_call_swallowed_is_still_heard() -> None:
    """A blocking call reads signals into the library's own queue, where no descriptor tells of them."""

    async with a_bus() as (bus, systemd):
        heard = asyncio.Event()
        bus.on_unit_changed(HIVE_UNIT, heard.set)
        swallowed = []
        original = systemd.state

        def state(unit: str) -> UnitState:
            if not swallowed:
                swallowed.append(heard.set)
            return original(unit)

        def pump() -> None:
            while swallowed:
                swallowed.pop()()

        systemd.state, systemd.pump = state, pump  # type: ignore[method-assign]
        await bus.state(HIVE_UNIT)
        await asyncio.wait_for(heard.wait(), 5)


async def test_a_bus_that_is_gone_is_told_once_and_does_not_spin() -> None:
    LOST.clear()

    async with a_bus() as (_bus, systemd):
        pumped = 0

        def pump() -> None:
            nonlocal pumped
            pumped += 1
            raise Unreachable("listening to the system bus: Connection reset by peer")

        systemd.pump = pump  # type: ignore[method-assign]
        systemd.becomes(HIVE_UNIT, ACTIVE)
        systemd.remove_job(systemd.job(HIVE_UNIT, "start"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert pumped == 1
    (lost,) = LOST
    assert "Connection reset by peer" in lost.message
