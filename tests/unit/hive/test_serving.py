"""What a hive serves models with: opened at its first use, or for what the hive before has left."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.hive.devices import Detector
from rbee.hive.serving import Serving
from rbee.hive.work import Serials, Work
from rbee.narration import Narrator
from rbee.scope import SYSTEM
from rbee.wire.routes import HiveRoutes

pytestmark = pytest.mark.deadline(10)


@pytest.fixture
def serving(tmp_path: Path) -> Serving:
    scope = SYSTEM._replace(runtime=tmp_path / "run/rbee", state=tmp_path)
    work = Work(Serials(), lambda: None)
    return Serving(scope, scope.hive_state, Detector(tmp_path), Narrator(), work, Narrator())


async def test_nothing_is_opened_where_nothing_was_left(serving: Serving) -> None:
    await serving.take_up()
    await serving.close()

    assert (serving._book, serving._units, serving._fetches, serving._opening) == (None, None, None, None)
    assert serving.holdings() == ((), ())


async def test_each_part_is_opened_once_and_closed(serving: Serving) -> None:
    assert serving.book() is serving.book()
    assert serving.units() is serving.units()
    assert serving.fetches() is serving.fetches()
    assert serving.estimates() is serving.estimates()
    assert await serving.workers() is await serving.workers()
    await serving.close()


async def test_workers_that_were_left_are_taken_up(serving: Serving, tmp_path: Path) -> None:
    (tmp_path / "rbee-hive/workers/Not a name").mkdir(parents=True)

    await serving.take_up()

    assert (await serving.workers()).all().workers == ()
    assert not list((tmp_path / "rbee-hive/workers").iterdir())
    await serving.close()


async def test_it_has_the_routes_that_a_hive_has_for_models(serving: Serving) -> None:
    assert set(serving.routes()) == {
        HiveRoutes.ENGINES, HiveRoutes.MEMORY, HiveRoutes.WORKERS, HiveRoutes.START_WORKER, HiveRoutes.WORKER,
        HiveRoutes.STOP_WORKER, HiveRoutes.CONNECT, HiveRoutes.FETCH, HiveRoutes.FETCH_STATE,
        HiveRoutes.CANCEL_FETCH, HiveRoutes.REMOVE_FILE, HiveRoutes.ESTIMATE,
    }  # fmt: skip
