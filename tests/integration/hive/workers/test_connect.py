"""Connecting to an engine that is busy, is gone, or has something else than its socket in its folder."""

from __future__ import annotations

import asyncio
import os
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


@pytest.mark.parametrize("what", ["link", "folder", "file", "fifo", "datagrams"])
async def test_only_a_socket_of_the_engine_s_own_is_connected_to(tmp_path: Path, what: str) -> None:
    own, others = tmp_path / "bee-1", tmp_path / "hive"
    others.mkdir()
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        listener.bind(str(others / "engine.sock"))
        listener.listen()
        listener.setblocking(False)
        if what == "folder":
            own.symlink_to(others)
        else:
            own.mkdir()
        path = own / "engine.sock"
        if what == "link":
            path.symlink_to(others / "engine.sock")
        elif what == "file":
            path.touch()
        elif what == "fifo":
            os.mkfifo(path)
        elif what == "datagrams":
            other.bind(str(path))
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(WorkerNotReady, match="the worker bee-1 does not accept connections: "):
            (await connect_to(path, "bee-1")).close()

        with pytest.raises(BlockingIOError):
            listener.accept()
        assert len(os.listdir("/proc/self/fd")) == before


async def test_a_connection_to_an_engine_leaves_nothing_else_open(tmp_path: Path) -> None:
    path = tmp_path / "engine.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        before = len(os.listdir("/proc/self/fd"))
        with await connect_to(path, "bee-1"):
            assert len(os.listdir("/proc/self/fd")) == before + 1
