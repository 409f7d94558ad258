"""The queen of this machine, as its hive works for her and leaves her."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from rbee.hive.heartbeat import Heart
from rbee.hive.queen import LocalQueen
from rbee.scope import SYSTEM


class PlayedHeart:
    def __init__(self) -> None:
        self.story: list[Any] = []

    async def run(self) -> None:
        self.story.append("beats")
        await asyncio.Event().wait()

    async def goodbye(self, find_machine_end: Any) -> None:
        self.story.append(("goodbye", find_machine_end()))


async def app(*_arguments: Any) -> None:
    raise AssertionError("the queen of this machine asks over the hive's own socket")


async def test_its_name_is_her_socket_and_it_cannot_be_told_to_forget_her(tmp_path: Path) -> None:
    queen = LocalQueen("localhost", tmp_path / "queen.sock", SYSTEM)

    assert (queen.hive_id, queen.name) == ("localhost", str(tmp_path / "queen.sock"))
    assert queen.forget is None
    assert queen.status_after_shutdown == 0
    await queen.close()


async def test_the_goodbye_comes_after_the_work_has_ended(tmp_path: Path) -> None:
    heart = PlayedHeart()
    queen = LocalQueen("localhost", tmp_path / "queen.sock", SYSTEM)

    work = asyncio.ensure_future(queen.work(cast(Heart, heart), app))
    async with queen.farewell(cast(Heart, heart), lambda: "rebooting"):
        await asyncio.sleep(0)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        heart.story.append("ended")
    await queen.close()

    assert heart.story == ["beats", "ended", ("goodbye", "rebooting")]
