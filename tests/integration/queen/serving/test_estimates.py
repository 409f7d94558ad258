"""The queen asks the hive of a model what its engine says, before a placement."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import rbee.queen.serving.estimates
from rbee.errors import HiveFailed
from rbee.queen.store.models import Learned
from rbee.wire.leases import Granted
from rbee.wire.models import EngineSays, Serve
from rbee.wire.workers import AskEstimate, Estimate
from tests.integration.queen.serving.serving_hive import GIB, Played, a_queen
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(20)

SAYS = Estimate("llama-server", 3 * GIB)


def shown(played: Played) -> EngineSays | None:
    models = played.queen.library.models
    return models.view(models.model("bee")).engine_says


async def test_what_the_engine_says_counts_before_the_header(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.estimate = SAYS
        placement = await played.serving.placement("bee")

        assert (placement.need_bytes, placement.source, placement.engine, placement.note) == (
            3 * GIB, "engine", "llama-server", None,
        )  # fmt: skip
        asked = AskEstimate("bee", "/m/bee.gguf", "gguf", 2048, ("ram", "gpu"), None, 793_000)
        assert played.hive.asked == [asked]
        assert shown(played) == EngineSays("llama-server", 3 * GIB)
        assert isinstance(await played.ask(), Granted)
        ((start, _),) = played.hive.starts
        assert start.claim_bytes == 3 * GIB
        assert played.story("worker-placed")[0].startswith("bee needs 3.0 GiB (says llama-server); ")


async def test_the_operator_counts_more_and_what_was_learned_too(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.estimate = SAYS
        await played.model("wasp", memory_bytes=GIB)
        assert (await played.serving.placement("wasp")).source == "operator"
        assert played.hive.asked == []

        await played.queen.library.models.learn(Learned("bee", 2048, "ram", "llama-server", 5))
        assert (await played.serving.placement("bee")).source == "learned"
        assert [one.kinds for one in played.hive.asked] == [("gpu",)]
        await played.queen.library.models.learn(Learned("bee", 2048, "gpu", "llama-server", 5))
        await played.serving.placement("bee")
        assert len(played.hive.asked) == 1


async def test_a_command_that_fails_leaves_the_next_source_and_says_why(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.estimate = Estimate("llama-server", problem="x.conf: Estimate=/bin/x: it printed 0")
        placement = await played.serving.placement("bee")

        assert (placement.source, placement.engine, placement.note) == (
            "estimate", None, "x.conf: Estimate=/bin/x: it printed 0",
        )  # fmt: skip
        assert shown(played) is None
        assert isinstance(await played.ask(), Granted)


async def test_a_command_that_was_not_run_leaves_what_it_said_before(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        passing = Estimate("llama-server", problem="the disk is slow", is_passing=True)
        for before, counts in (
            (Estimate("other", GIB), ("estimate", "the disk is slow")),
            (SAYS, ("engine", None)),
        ):
            played.hive.estimate = before
            await played.serving.placement("bee")
            played.hive.estimate = passing
            placement = await played.serving.placement("bee")

            assert (placement.source, placement.note) == counts
        assert shown(played) == EngineSays("llama-server", 3 * GIB)


async def test_how_a_model_is_served_may_change_while_its_engine_is_asked(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.estimate = is_answered = asyncio.Event()
        asking = asyncio.ensure_future(played.ask())
        await until(lambda: bool(played.hive.asked))
        await played.queen.library.models.serve("bee", Serve(context=512), {})
        is_answered.set()

        assert isinstance(await asking, Granted)
        ((start, _),) = played.hive.starts
        assert start.context == 512


async def test_a_hive_that_cannot_be_asked_does_not_keep_a_model_from_its_placement(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.queen.serving.estimates, "TIMEOUT", 0.1)
    async with a_queen(tmp_path) as played:
        for refusal in (None, HiveFailed("no"), asyncio.Event()):
            played.hive.estimate = refusal
            placement = await played.serving.placement("bee")
            assert (placement.decision, placement.source, placement.note) == ("start", "estimate", None)


async def test_an_answer_for_another_context_or_engine_does_not_count(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.estimate = SAYS
        await played.serving.placement("bee")
        played.hive.estimate = HiveFailed("no")
        models = played.queen.library.models

        await models.serve("bee", Serve(context=512), {})
        assert (await played.serving.placement("bee")).source == "estimate"
        assert shown(played) is None
        await models.serve("bee", Serve(context=2048), {})
        assert (await played.serving.placement("bee")).source == "engine"
        await models.serve("bee", Serve(engine="vllm"), {})
        assert (await played.serving.placement("bee")).source == "estimate"


async def test_a_model_that_is_served_is_asked_about_at_once(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.hive.estimate = SAYS
        await played.hive.beat()
        await until(lambda: played.queen.hives.hive("localhost").standing.is_online)
        await played.queen.library.models.serve("bee", Serve(), {})

        await until(lambda: shown(played) == EngineSays("llama-server", 3 * GIB))
