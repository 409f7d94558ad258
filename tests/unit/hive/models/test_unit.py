"""A request, its unit, and its end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rbee.errors import Stopping, TimedOut, UnitFailed
from rbee.hive.models.unit import FetchUnits
from rbee.modelfile.store import StoreRequest
from rbee.systemd.unit import UnitState
from tests.unit.hive.models.played import FAILED, FETCH, INACTIVE, RUNNING, UNIT, Played, scope_in
from tests.unit.wait import until

REQUEST = StoreRequest(fetch=FETCH)


@pytest.fixture
def played(tmp_path: Path) -> Played:
    return Played(scope_in(tmp_path))


@pytest.fixture
def units(played: Played) -> FetchUnits:
    return FetchUnits(played.scope, played, played)


async def test_a_request_is_for_this_user_and_root_only(units: FetchUnits, played: Played) -> None:
    assert units.requests() == {}
    await units.write("one", REQUEST)

    folder = played.scope.fetch_requests
    assert [folder.stat().st_mode & 0o777, (folder / "one").stat().st_mode & 0o777] == [0o700, 0o600]
    assert units.requests() == {"one": REQUEST}
    units.drop("one")
    units.drop("one")
    assert units.requests() == {}


async def test_a_request_that_cannot_be_read_is_removed(units: FetchUnits, played: Played) -> None:
    await units.write("one", REQUEST)
    for name, content in (("two", b"{"), (".three.new", b"{}"), ("four", b'{"forget": 7}')):
        (played.scope.fetch_requests / name).write_bytes(content)

    assert units.requests() == {"one": REQUEST}
    assert [path.name for path in played.scope.fetch_requests.iterdir()] == ["one"]


async def test_a_unit_is_started_and_followed_to_its_end(units: FetchUnits, played: Played) -> None:
    await units.write("one", REQUEST)
    heard: list[UnitState] = []

    assert await units.run("one", heard.append) == INACTIVE
    assert played.asked == [("start", UNIT)]
    assert heard == [RUNNING, INACTIVE]


async def test_a_unit_that_runs_is_followed_and_not_started(units: FetchUnits, played: Played) -> None:
    played.states[UNIT] = RUNNING
    running = asyncio.ensure_future(units.run("one"))
    await asyncio.sleep(0)
    played.becomes(UNIT, UnitState("loaded", "activating", "auto-restart", result="signal"))
    await asyncio.sleep(0.01)
    assert not running.done()
    played.becomes(UNIT, INACTIVE)

    assert await running == INACTIVE
    assert played.asked == []


async def test_one_that_had_failed_is_reset_first(units: FetchUnits, played: Played) -> None:
    await units.write("one", REQUEST)
    played.states[UNIT] = FAILED

    await units.run("one")
    assert played.asked == [("reset-failed", UNIT), ("start", UNIT)]


async def test_a_stop_is_awaited(units: FetchUnits, played: Played) -> None:
    await units.stop("one")
    assert played.asked == []

    played.hangs = True
    await units.write("one", REQUEST)
    running = asyncio.ensure_future(units.run("one"))
    await until(lambda: played.states[UNIT] == RUNNING)
    await units.stop("one")
    assert played.states[UNIT] == INACTIVE
    await running


async def test_a_refusal_is_passed_on(units: FetchUnits, played: Played) -> None:
    played.refusal = UnitFailed("no")

    with pytest.raises(UnitFailed):
        await units.run("one")


async def test_a_unit_of_which_systemd_tells_nothing_for_a_moment_is_followed_on(
    units: FetchUnits, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.hive.models.unit.RETRY_INTERVAL", 0.01)
    await units.write("one", REQUEST)
    played.hangs = True
    ending = asyncio.ensure_future(units.run("one"))
    await until(lambda: played.states[UNIT] == RUNNING)
    answers, asked = played.state, []

    async def silent(unit: str) -> UnitState:
        asked.append(unit)
        if len(asked) <= 2:
            raise TimedOut("systemd is silent")
        return await answers(unit)

    monkeypatch.setattr(played, "state", silent)
    await played.end(UNIT)
    assert await ending == INACTIVE
    assert len(asked) > 2


async def test_a_hive_that_stops_follows_it_no_more(
    units: FetchUnits, played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    await units.write("one", REQUEST)
    played.hangs = True
    ending = asyncio.ensure_future(units.run("one"))
    await until(lambda: played.states[UNIT] == RUNNING)

    async def stopping(unit: str) -> UnitState:
        raise Stopping("the hive is being stopped")

    monkeypatch.setattr(played, "state", stopping)
    await played.end(UNIT)
    with pytest.raises(Stopping):
        await ending
