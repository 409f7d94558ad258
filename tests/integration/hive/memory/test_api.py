"""The hive's route for its memory book, as the queen asks it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rbee.hive.devices import Detector
from rbee.hive.memory.api import routes
from rbee.hive.memory.book import Book
from rbee.server.app import build_app
from rbee.systemd.daemon import Notifier
from rbee.wire.codec import decode
from rbee.wire.routes import HiveRoutes
from rbee.wire.workers import Memory
from tests.integration.unix_http import raw, request, served


async def test_the_book_is_opened_at_its_first_use_and_tells_of_this_machine(
    tmp_path: Path, notifier: Notifier
) -> None:
    opened: list[Book] = []

    def open_book() -> Book:
        opened[:] = opened or [Book(Detector())]
        return opened[0]

    app = build_app("rbee hive", "1", routes(open_book))
    assert opened == []
    async with served(app, tmp_path / "hive.sock", notifier):
        for _ in range(2):
            answer = await raw(tmp_path / "hive.sock", request("GET", HiveRoutes.MEMORY.path))
            assert answer.status == 200
            ram, *_ = decode(Memory, answer.json).pools
            assert ram.id == "ram"
            assert ram.total_bytes is not None
            assert ram.free_bytes is not None
            held = sum(holder.bytes or 0 for holder in ram.holders)
            assert held + ram.claimed_bytes + ram.free_bytes == ram.total_bytes
    await asyncio.wait_for(opened[0].close(), 5)
