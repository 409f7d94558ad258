"""Models and workers as clients see them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.queen.serving.serving_hive import GIB, a_queen

pytestmark = pytest.mark.deadline(20)


async def test_a_served_model_without_a_worker_is_asleep_and_another_is_not_shown(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.model("off", is_served=False)
        await played.model("lost", state="missing", reason="it was moved")

        views = {view.model: view for view in played.serving.views().workers}
        assert {name: view.state for name, view in views.items()} == {"bee": "asleep", "lost": "asleep"}
        assert views["lost"].reason == "its file is missing: it was moved"


async def test_the_workers_of_one_model_are_shown(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.model("wasp", is_pinned=True)
        await played.ask("wasp")

        (view,) = played.serving.views("wasp").workers
        assert (view.id, view.model, view.hive_id, view.pool, view.is_pinned) == (
            "wasp-1", "wasp", "localhost", "ram", True,
        )  # fmt: skip
        assert view.last_used_ms is not None


async def test_a_placement_is_shown_and_starts_nothing(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.model("bee", memory_bytes=2 * GIB)
        placement = await played.serving.placement("bee")

        assert (placement.decision, placement.need_bytes, placement.source) == ("start", 2 * GIB, "operator")
        (candidate,) = placement.candidates
        assert (candidate.hive_id, candidate.pool, candidate.fits, candidate.is_chosen) == (
            "localhost", "ram", True, True,
        )  # fmt: skip
        assert played.hive.starts == []


async def test_serving_no_model_is_no_error(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        played.serving.unserve("nobody", {})
        await played.tape.until("unserved", "nobody is not in the catalog; 0 workers have ended")
