"""Asking hives for their workers."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.client.link import HiveClient
from rbee.errors import HiveFailed
from rbee.wire.hives import AddHive
from rbee.wire.workers import HiveWorkers
from tests.integration.queen.hives.local_hive import told
from tests.integration.queen.serving.serving_hive import a_queen
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(20)


async def test_a_change_of_a_worker_is_known_with_the_beat_that_reports_it(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.ask()
        await played.at_rest()
        await played.hive.becomes("bee-1", "loading", reason="it is started again")
        await until(lambda: played.states() == ["loading"])
        await played.hive.becomes("bee-1", "ready")
        await until(lambda: played.states() == ["ready"])


async def test_a_hive_that_is_away_has_unknown_workers_and_is_asked_again_when_it_is_back(
    tmp_path: Path,
) -> None:
    async with a_queen(tmp_path) as played:
        await played.ask()
        await played.at_rest()
        standing = played.queen.hives.hive("localhost").standing
        await standing.set_offline("its process ended")
        assert played.states() == ["unknown"]
        (view,) = played.serving.views().workers
        assert view.reason == "the beehive is offline"
        await played.hive.becomes("bee-1", "ready", used_bytes=77)
        await until(lambda: played.states() == ["ready"])

        (view,) = played.serving.views().workers
        assert view.used_bytes == 77


async def test_a_worker_that_has_ended_is_forgotten(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.ask()
        del played.hive.workers["bee-1"]
        await played.hive.beat()
        await until(lambda: played.states() == ["asleep"])


async def test_a_worker_of_a_model_that_is_not_served_is_stopped(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.adopted("ghost-1", "ghost")
        await played.hive.beat()
        await until(lambda: played.hive.stops == ["ghost-1"])

        assert played.story("worker-removed") == ["stopping ghost-1: the model ghost is not served"]


async def test_the_workers_of_a_hive_that_is_removed_are_forgotten(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.ask()
        await played.at_rest()
        played.queen.work.remove("localhost", {})
        await until(lambda: played.states() == ["asleep"])


async def test_a_hive_that_cannot_say_its_workers_is_asked_again_and_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_queen(tmp_path) as played:
        await played.ask()
        await played.at_rest()
        asked = 0

        async def fail(*_: object, **__: object) -> None:
            nonlocal asked
            asked += 1
            raise HiveFailed("workers is missing")

        with monkeypatch.context() as patched:
            patched.setattr(HiveClient, "workers", fail)
            for count in (1, 2, 3):
                await played.serving.refresher.refresh("localhost")
                assert asked >= count
        await played.serving.refresher.refresh("localhost")
    assert caplog.text.count("the workers of hive localhost are not known: workers is missing") == 1


async def test_a_hive_that_is_added_again_has_nothing_of_the_one_that_was_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_queen(tmp_path) as played:
        await played.ask()
        await played.at_rest()

        async def fail(*_: object, **__: object) -> None:
            raise HiveFailed("workers is missing")

        monkeypatch.setattr(HiveClient, "workers", fail)
        await played.serving.refresher.refresh("localhost")
        former = played.queen.hives.hive("localhost").workload
        await told(played.queen.work.remove("localhost", {}))
        await told(played.queen.work.add(AddHive("localhost", 8600), {}))
        assert played.queen.hives.hive("localhost").workload is not former
        await played.serving.refresher.refresh("localhost")
        assert len(caplog.records) == 2, caplog.text
        assert {record.getMessage() for record in caplog.records} == {
            "the workers of hive localhost are not known: workers is missing"
        }


async def test_an_answer_that_comes_after_its_hive_was_removed_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_queen(tmp_path) as played:
        await played.ask()
        await played.at_rest()

        async def late(*_: object, **__: object) -> HiveWorkers:
            answer = HiveWorkers(tuple(played.hive.workers.values()))
            await told(played.queen.work.remove("localhost", {}))
            return answer

        monkeypatch.setattr(HiveClient, "workers", late)
        await played.serving.refresher.refresh("localhost")
        assert played.states() == ["asleep"]
