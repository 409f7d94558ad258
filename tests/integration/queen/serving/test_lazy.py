"""A queen without models does not pay for serving them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.wire.heartbeats import Heartbeat
from tests.integration.queen.serving.serving_hive import Played, a_queen
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(20)


def is_built(played: Played) -> bool:
    return "serving" in vars(played.queen.serving)


def beat(played: Played, work: str | None) -> Heartbeat:
    return Heartbeat(
        "localhost", "2026-01-31T12:00:00Z", (), played.hive.instance, version="0.5.0", work=work
    )


async def test_serving_is_built_at_its_first_use(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.hive.beat()
        assert not is_built(played)
        assert played.queen.serving.views() == ()
        assert played.queen.serving.holdings("localhost") == (("bee",), ())
        await played.ask()

        assert is_built(played)
        assert played.queen.serving.holdings("localhost") == (("bee",), ("bee-1",))
        (view,) = played.queen.serving.views()
        assert view.id == "bee-1"


async def test_a_beat_with_unchanged_work_stays_a_plain_one(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        hive = played.queen.hives.hive("localhost")
        assert hive.take_plain(beat(played, None)) is not None
        await played.ask()
        await played.at_rest()
        await until(lambda: not hive.workload.is_other)

        assert hive.take_plain(beat(played, hive.workload.heard)) is not None
        assert hive.take_plain(beat(played, "fefe")) is None


async def test_a_hive_with_workers_is_asked_for_them_at_the_first_beat(tmp_path: Path) -> None:
    async with a_queen(tmp_path, with_hive=False) as played:
        played.hive.adopted()
        job = played.queen.jobs.open("add-hive", None)
        await played.queen.work.ensure("localhost", job, played.tape, {})
        await until(lambda: is_built(played) and played.states() == ["ready"])


async def test_the_seeds_sentence_counts_models_and_workers(tmp_path: Path) -> None:
    async with a_queen(tmp_path, with_hive=False) as played:
        job = played.queen.jobs.open("add-hive", None)
        await played.queen.work.ensure("localhost", job, played.tape, {})

        (told,) = played.story("has-devices")
        assert told.endswith("and model catalog has 1 models and 0 workers available")
        await played.ask()
        devices = played.queen.hives.view("localhost").devices
        assert devices is not None
        assert (devices.model_catalog, devices.worker_catalog) == (("bee",), ("bee-1",))
