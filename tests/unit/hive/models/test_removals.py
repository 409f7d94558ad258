"""Removing from the store."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.errors import HiveFailed, TimedOut
from rbee.hive.models import removals as room
from rbee.hive.models.removals import Removals
from rbee.hive.models.unit import FetchUnits
from rbee.modelfile.store import StoreRequest
from rbee.systemd.unit import UnitState
from tests.unit.hive.models.played import FAILED, FETCH, INACTIVE, SUM, Played, scope_in


@pytest.fixture
def played(tmp_path: Path) -> Played:
    return Played(scope_in(tmp_path))


@pytest.fixture
def removals(played: Played) -> Removals:
    return Removals(played.scope, played.store, FetchUnits(played.scope, played, played))


async def test_a_file_is_removed_once(played: Played, removals: Removals) -> None:
    played.put(FETCH)

    assert await removals.remove(SUM)
    assert not await removals.remove(SUM)
    assert len(played.asked) == 1
    assert list(played.scope.fetch_requests.iterdir()) == []


async def test_a_removal_that_fails_says_so_and_is_kept_for_the_next_hive(
    played: Played, removals: Removals
) -> None:
    async def fails(_unit: str, _request: StoreRequest) -> UnitState:
        return FAILED

    played.program = fails
    played.put(FETCH)
    with pytest.raises(HiveFailed, match="could not be changed: exit-code"):
        await removals.remove(SUM)
    assert len(list(played.scope.fetch_requests.iterdir())) == 1


async def test_a_file_that_is_still_there_is_no_success(played: Played, removals: Removals) -> None:
    async def does_nothing(_unit: str, _request: StoreRequest) -> UnitState:
        return INACTIVE

    played.program = does_nothing
    played.put(FETCH)
    with pytest.raises(HiveFailed, match="was not removed"):
        await removals.remove(SUM)


async def test_a_removal_has_a_deadline(
    played: Played, removals: Removals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "TIMEOUT", 0.05)
    played.hangs = True
    played.put(FETCH)

    with pytest.raises(TimedOut, match="was not done after 0.05 s"):
        await removals.remove(SUM)
    await played.close()
