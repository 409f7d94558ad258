"""Connecting to an engine that is busy."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from rbee.errors import WorkerNotReady
from rbee.hive.workers.connect import connect_to

pytestmark = pytest.mark.deadline(10)


async def test_an_engine_with_a_full_queue_is_waited_for_and_not_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "engine.sock"
    with ExitStack() as opened:
        listener = opened.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        opened.enter_context(await connect_to(path, "bee-1"))

        monkeypatch.setattr("rbee.hive.workers.connect.CONNECT_TIMEOUT", 0.05)
        with pytest.raises(WorkerNotReady, match=r"does not accept connections: timed out after 0.05 s"):
            await connect_to(path, "bee-1")

        monkeypatch.setattr("rbee.hive.workers.connect.CONNECT_TIMEOUT", 5)
        connecting = asyncio.ensure_future(connect_to(path, "bee-1"))
        await asyncio.sleep(0.02)
        assert not connecting.done()
        opened.enter_context(listener.accept()[0])
        opened.enter_context(await connecting)


async def test_an_engine_that_is_gone_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(WorkerNotReady, match="does not accept connections: No such file or directory"):
        await connect_to(tmp_path / "engine.sock", "bee-1")
