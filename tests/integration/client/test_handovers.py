"""Connections to engines by a hive's kept connection."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from rbee.client.handovers import EngineConnections
from rbee.errors import Disconnected, NotRunning, UnknownWorker
from rbee.systemd.daemon import Notifier
from tests.integration.hive.workers.test_api import a_ready_worker
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(20)


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def test_one_connection_to_the_hive_is_kept(tmp_path: Path, silent_notifier: Notifier) -> None:
    async with a_ready_worker(tmp_path, silent_notifier, silent) as hive:
        engines = EngineConnections(hive.path)
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(5):
            (await engines.to("bee-1", timeout=5)).close()
            (kept,) = engines._kept
            with pytest.raises(UnknownWorker, match="this hive has no worker none-1"):
                await engines.to("none-1", timeout=5)
            assert engines._kept == [kept]
        engines.close()
        assert engines._kept == []
        await until(lambda: len(os.listdir("/proc/self/fd")) == before)  # the hive closes its end, too


async def test_several_at_once_have_a_connection_each(tmp_path: Path, silent_notifier: Notifier) -> None:
    async with a_ready_worker(tmp_path, silent_notifier, silent) as hive:
        engines = EngineConnections(hive.path)
        for channel in await asyncio.gather(*(engines.to("bee-1", timeout=5) for _ in range(4))):
            channel.close()
        assert len(engines._kept) == 4
        engines.close()


async def test_a_restarted_hive(tmp_path: Path, silent_notifier: Notifier) -> None:
    engines: EngineConnections | None = None
    for run in ("1", "2"):
        folder = tmp_path / run
        folder.mkdir()
        async with a_ready_worker(folder, silent_notifier, silent) as hive:
            if engines is None:
                engines = EngineConnections(hive.path)
            engines.path = hive.path
            (await engines.to("bee-1", timeout=5)).close()
        if run == "1":
            engines._kept[0]._channel.shutdown(2)  # as its process has ended
    assert engines is not None
    engines.close()


async def test_a_request_that_is_cancelled_leaves_no_connection_with_half_an_answer(
    tmp_path: Path, silent_notifier: Notifier
) -> None:
    async with a_ready_worker(tmp_path, silent_notifier, silent) as hive:
        engines = EngineConnections(hive.path)
        (await engines.to("bee-1", timeout=5)).close()
        asking = asyncio.ensure_future(engines.to("bee-1", timeout=5))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert engines._kept == []
        (await engines.to("bee-1", timeout=5)).close()
        engines.close()


async def test_a_hive_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises((NotRunning, Disconnected)):
        await EngineConnections(tmp_path / "none").to("bee-1", timeout=1)
