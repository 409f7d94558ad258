"""The engines of the fleet, from hives that are served."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.errors import UnknownHive
from rbee.queen.hives.engines import engines_of
from tests.integration.queen.serving.serving_hive import LLAMA, a_queen

pytestmark = pytest.mark.deadline(20)


@pytest.mark.parametrize("name", [None, "localhost"])
async def test_the_engines_of_a_hive_are_those_that_it_reports(tmp_path: Path, name: str | None) -> None:
    async with a_queen(tmp_path) as played:
        (engines,) = (await engines_of(played.queen.hives, name)).hives

        assert (engines.hive_id, engines.engines, engines.reason) == ("localhost", (LLAMA,), None)


async def test_a_hive_that_is_offline_or_does_not_answer_has_the_reason(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        await played.hive._stack.aclose()
        (silent,) = (await engines_of(played.queen.hives)).hives
        played.queen.hives.hive("localhost").standing.set("offline", "its process ended")
        (offline,) = (await engines_of(played.queen.hives)).hives

        assert (silent.engines, offline.engines) == ((), ())
        assert "it did not answer" in (silent.reason or "")
        assert offline.reason == "the beehive is offline: its process ended"


async def test_a_hive_that_is_not_in_the_catalog_is_unknown(tmp_path: Path) -> None:
    async with a_queen(tmp_path) as played:
        with pytest.raises(UnknownHive):
            await engines_of(played.queen.hives, "other")
