"""Starts: who gives way, who waits, what fails, and what is said of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import rbee.queen.serving.starter
from rbee.client.link import HiveClient
from rbee.errors import BadInput, NoMemory, TimedOut
from rbee.wire.hives import SetCordon
from rbee.wire.leases import Granted, Refused, Wait
from rbee.wire.workers import Pool
from tests.integration.queen.hives.local_hive import told
from tests.integration.queen.serving.serving_hive import GIB, Played, a_queen
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(20)


@pytest.fixture(autouse=True)
def memory_is_looked_at_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rbee.queen.serving.starter, "RECHECK", 0.05)


async def two_models(played: Played) -> None:
    """Of these only one fits."""
    await played.model("bee", memory_bytes=5 * GIB)
    await played.model("wasp", memory_bytes=5 * GIB)


async def test_an_idle_worker_gives_way(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await two_models(played)
        await played.ask("bee")
        await played.at_rest()
        granted = await played.ask("wasp")

        assert isinstance(granted, Granted)
        assert played.hive.stops == ["bee-1"]
        assert played.states("bee") == ["asleep"]
        assert played.story("worker-gives-way") == [
            "wasp needs 5.0 GiB (operator); localhost ram has 3.0 GiB free, and stopping bee-1 (idle) makes "
            "room: stopping bee-1"
        ]
        assert played.queen.metrics.evictions == 1


async def test_a_busy_worker_does_not_and_the_request_waits_for_it(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await two_models(played)
        async with played.client("bee") as first:
            await first.granted()
            async with played.client("wasp") as second:
                frame = await second.frame()
                while "bee-1 must end first" not in getattr(frame, "text", ""):
                    frame = await second.frame()
                assert played.hive.stops == []
                assert played.states("wasp") == ["waiting"]
                first.connection.close()
                assert (await second.granted()).worker == "wasp-1"
        assert played.hive.stops == ["bee-1"]


async def test_a_request_that_waited_to_its_end_is_refused_with_the_sums(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await two_models(played)
        async with played.client("bee") as first:
            await first.granted()
            async with played.client("wasp", hold=0.3) as second:
                refused = await second.refused()
            assert "wasp needs 5.0 GiB (operator)" in refused.problem["detail"]
            assert "localhost ram has 3.0 GiB of 8.0 GiB free" in refused.problem["detail"]
            assert refused.retry_s
            assert played.hive.stops == []
            await until(lambda: played.serving.starter.find("wasp") is None)
            assert played.states("bee") == ["busy"]


async def test_a_pinned_worker_never_gives_way(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await two_models(played)
        await played.model("bee", memory_bytes=5 * GIB, is_pinned=True)
        await played.ask("bee")
        await played.at_rest()
        refused = await played.ask("wasp")

        assert isinstance(refused, Refused)
        assert refused.problem["type"] == "urn:rbee:problem:no-room"
        assert played.hive.stops == []


async def test_those_that_wait_are_served_in_their_order(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        for name in ("bee", "wasp", "hornet"):
            await played.model(name, memory_bytes=5 * GIB)
        async with played.client("bee") as first:
            await first.granted()
            async with played.client("wasp") as second:
                await second.frame()
                await until(lambda: played.states("wasp") == ["waiting"])
                async with played.client("hornet") as third:
                    await third.frame()
                    await asyncio.sleep(0.1)
                    first.connection.close()
                    assert (await second.granted()).worker == "wasp-1"
                    second.connection.close()
                    assert (await third.granted()).worker == "hornet-1"


async def test_a_worker_that_fails_to_load_is_reported_with_its_last_lines_and_removed(
    tmp_path: Path,
) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.loads_at_once = False
        async with played.client() as client:
            await until(lambda: len(played.hive.workers) == 1)
            await played.hive.fails("bee-1", "the engine ended with exit status 1", "no such tensor: x")
            refused = await client.refused()

        assert refused.problem["type"] == "urn:rbee:problem:worker-failed"
        assert refused.problem["status"] == 502
        assert "the engine ended with exit status 1" in refused.problem["detail"]
        assert "no such tensor: x" in refused.problem["detail"]
        assert refused.problem["hint"] == "rbeectl status bee"
        end = "bee could not be started on localhost ram: the engine ended with exit status 1"
        assert played.story("worker-unplaced")[-1] == f"waking bee failed: {end}"
        await until(lambda: played.hive.workers == {})
        (view,) = played.serving.views("bee").workers
        assert (view.state, view.id, view.log) == ("failed", "bee-1", ("no such tensor: x",))


async def test_after_repeated_failures_there_is_a_pause_which_serving_anew_ends(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.loads_at_once = False
        for number in (1, 2):
            async with played.client() as client:
                await until(lambda: len(played.hive.workers) == 1)
                await played.hive.fails(f"bee-{number}")
                await client.refused()
            await until(lambda: played.hive.workers == {})
        refused = await played.ask()

        assert isinstance(refused, Refused)
        assert "failure 2 in a row, requests may start it again in" in refused.problem["detail"]
        assert refused.retry_s == 5
        assert len(played.hive.starts) == 2
        played.hive.loads_at_once = True
        played.queen.library.models.when_served("bee")
        assert isinstance(await played.ask(), Granted)
        assert played.serving.failures.find("bee") is None


async def test_a_start_that_the_hive_refuses_is_a_failure_and_makes_room_no_second_time(
    tmp_path: Path,
) -> None:
    async with a_queen(tmp_path) as played:
        await two_models(played)
        await played.ask("bee")
        await played.at_rest()
        played.hive.refusal = BadInput("this card cannot be selected", field="pool")
        first, second = await played.ask("wasp"), await played.ask("wasp")
        played.hive.refusal = None
        await played.ask("bee")
        await played.at_rest()
        third = await played.ask("wasp")

        assert isinstance(first, Refused)
        assert isinstance(second, Refused)
        assert isinstance(third, Refused)
        assert first.problem["type"] == "urn:rbee:problem:worker-failed"
        assert first.problem["detail"] == (
            "wasp could not be started on localhost ram: this card cannot be selected"
        )
        assert "failure 2 in a row, requests may start it again in" in third.problem["detail"]
        assert third.retry_s == 5
        assert played.hive.stops == ["bee-1"]
        (view,) = played.serving.views("wasp").workers
        assert (view.state, view.reason) == ("failed", "this card cannot be selected")


async def test_a_worker_whose_start_was_not_answered_in_time_is_waited_for(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.refusal = TimedOut("it has not answered within 15 s")
        for _ in range(2):
            assert isinstance(await played.ask(), Refused)
        played.hive.adopted("bee-2", state="loading")
        await played.hive.beat()
        await until(lambda: played.states("bee") == ["loading"])
        async with played.client() as client:
            assert isinstance(await client.frame(), Wait)
            await played.hive.loads("bee-2")

            assert (await client.granted()).worker == "bee-2"


async def test_claims_that_the_hive_goes_on_refusing_are_a_failure_too(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.refusal = NoMemory("there is less than it seemed")
        for _ in range(2):
            refused = await played.ask()
            assert isinstance(refused, Refused)
            assert refused.problem["type"] == "urn:rbee:problem:no-room"
        third = await played.ask()

        assert isinstance(third, Refused)
        assert "there is less than it seemed; failure 2 in a row" in third.problem["detail"]
        assert len(played.hive.starts) == 6


async def test_a_card_that_the_engine_cannot_select_is_left_alone(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.cards = (Pool("gpu0", "an integrated GPU", 8 * GIB, 8 * GIB, shares_ram=True),)
        placement = await played.serving.placement("bee")
        granted = await played.ask()

        assert isinstance(granted, Granted)
        assert [start.pool for start, _ in played.hive.starts] == ["ram"]
        assert [one.verdict for one in placement.candidates] == [
            "it fits", "llama-server selects a card by its UUID, and that of this card is not known",
        ]  # fmt: skip


async def test_a_worker_that_dies_later_is_failed_and_the_next_request_starts_another(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        async with played.client() as client:
            await client.granted()
            client.connection.take().close()
            await played.hive.fails("bee-1", "killed by signal 9")
            assert await client.is_cut()
            assert client.reason == "the worker bee-1 has ended: killed by signal 9"
        await until(lambda: played.states() == ["failed"])
        assert played.hive.stops == ["bee-1"]
        granted = await played.ask()
        assert isinstance(granted, Granted)
        assert (granted.worker, granted.was_cold) == ("bee-2", True)


async def test_memory_that_other_programs_free_is_noticed(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await two_models(played)
        async with played.client("bee") as first, played.client("wasp") as second:
            await first.granted()
            while not isinstance(await second.frame(), Wait):
                pass
            played.hive.total += 8 * GIB
            assert (await second.granted()).worker == "wasp-1"


@pytest.mark.parametrize("waits", [False, True], ids=["at first", "while it is waited for"])
async def test_a_hive_that_does_not_answer_holds_up_no_start_on_another(tmp_path: Path, waits: bool) -> None:
    async with a_queen(tmp_path) as played:
        row = played.queen.hives.hive("localhost").standing.row._replace(id="slow", host="slow")
        slow = played.queen.hives.take_in(row, "unknown" if waits else "online", "it is said to be")
        asked = asyncio.Event()

        async def reach() -> HiveClient:
            asked.set()
            return await asyncio.Future[HiveClient]()

        slow.reach = reach  # type: ignore[method-assign]
        await played.model("wasp", hive_id="slow", memory_bytes=GIB)
        async with played.client("wasp"):
            if waits:
                await until(lambda: len(played.story("worker-waits")) == 1)
                slow.standing.set("online", "it has sent a heartbeat")
            await asyncio.wait_for(asked.wait(), 5)
            granted = await asyncio.wait_for(played.ask("bee"), 3)

            assert isinstance(granted, Granted)
            assert played.states("wasp") == ["waiting"]


async def test_an_engine_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.problem = "/usr/bin/llama-server is missing"
        refused = await played.ask()

        assert isinstance(refused, Refused)
        assert "llama-server: /usr/bin/llama-server is missing" in refused.problem["detail"]


async def test_a_model_whose_file_has_not_come_is_refused(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.model("bee", state="failed", reason="404 Not Found")
        refused = await played.ask()

        assert isinstance(refused, Refused)
        assert refused.problem["detail"] == "the model bee is failed: 404 Not Found"


async def test_what_was_learned_counts_for_the_next_start(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.ask()
        await played.at_rest()
        await until(lambda: played.queen.library.models.learned("bee", 2048, "ram") == 50 * 2**20)
        placement = await played.serving.placement("bee")

        assert (placement.decision, placement.source, placement.need_bytes) == (
            "ready",
            "learned",
            50 * 2**20,
        )


async def test_what_no_memory_would_help_is_refused_with_its_cure(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.queen.hives.hive("localhost").standing.set_cordon(SetCordon("new disk"), {})
        cordoned = await played.ask()
        assert isinstance(cordoned, Refused)
        assert (cordoned.problem["type"], cordoned.problem["detail"], cordoned.problem["hint"]) == (
            "urn:rbee:problem:model-not-ready",
            "bee cannot run now: localhost: it is cordoned: new disk",
            "rbeectl uncordon localhost",
        )
        await played.queen.hives.hive("localhost").standing.set_cordon(SetCordon(None), {})
        played.hive.problem = "it is not installed"
        unusable = await played.ask()
        assert isinstance(unusable, Refused)
        assert unusable.problem["hint"] == "rbeectl list-engines"
        assert (await played.serving.placement("bee")).hint == "rbeectl list-engines"
        await played.queen.hives.hive("localhost").standing.set_offline("stopped", wanted=False)
        stopped = await played.ask()
        assert isinstance(stopped, Refused)
        assert stopped.problem["hint"] == "rbeectl add-hive localhost"


async def test_a_file_that_is_away_is_not_placed_and_one_that_was_missing_is(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.model("bee", state="fetching", reason="62 %", path=None)
        away = await played.serving.placement("bee")
        assert (away.decision, away.reason) == ("refuse", "the model bee is fetching: 62 %")
        assert not any(candidate.is_chosen for candidate in away.candidates)
        await played.model("bee", state="missing", reason="the last start did not find /m/bee.gguf")
        missing = await played.serving.placement("bee")
        assert missing.decision == "start"
        assert missing.reason.endswith("8.0 GiB free; the last start did not find /m/bee.gguf")


async def test_the_job_of_a_start_has_its_story(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        granted = await played.ask()
        assert isinstance(granted, Granted)
        assert granted.job_id is not None
        events = await told(played.queen.jobs.job(granted.job_id))

        lines = [data["text"] for kind, data in events if kind == "line"]
        assert lines[0].endswith("localhost ram has 8.0 GiB free: waking it there")
        assert lines[-1].startswith("bee is awake: bee-1 on localhost ram, after")
        assert events[-1][0] == "done"


async def test_a_model_that_is_served_no_more_loses_its_workers_and_requests(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played, played.client() as client:
        await client.granted()
        client.connection.take().close()
        events = await told(played.serving.unserve("bee", {"actor_uid": "1000"}))

        assert await client.is_cut()
        assert events[-1][0] == "done"
        assert played.hive.stops == ["bee-1"]
        assert played.states() == []
        assert played.story("unserved") == ["bee is not served any more; 1 worker has ended"]


async def test_a_request_in_progress_hears_why_it_is_cut(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played, played.client() as client:
        await client.granted()
        client.connection.take().close()
        await told(played.serving.unserve("bee", {}))
        refused = await client.refused()

        assert refused.problem["detail"] == "the model bee is not served any more"
        assert refused.problem["hint"] == "rbeectl serve bee"


async def test_a_start_ends_with_its_model(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.loads_at_once = False
        async with played.client() as client:
            await until(lambda: len(played.serving.known.all()) == 1)
            await told(played.serving.unserve("bee", {}))
            refused = await client.refused()

        assert refused.problem["detail"] == "the model bee is not served any more"
        assert played.hive.workers == {}


async def test_a_worker_that_cannot_be_stopped_fails_the_job(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.ask()
        played.hive.refuses_stop = True
        events = await told(played.serving.unserve("bee", {}))

        assert events[-1][0] == "error"
        assert events[-1][1]["detail"] == "it does not end"
