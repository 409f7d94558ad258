"""Each story is told in a house of its own; servers end quickly."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.house import House

ANYIO_CANCELLED = "Exception in callback Future.set_result(None)"
"""What anyio's Unix stream makes asyncio log when a read is cancelled in the moment its answer arrives."""


@pytest.fixture(scope="session", autouse=True)
def what_is_there_already() -> None:
    """Spare the collections below from going through all of pytest."""
    gc.collect()
    gc.freeze()


class Brisk:
    """asyncio for uvicorn's server, which looks whether it should end: every 5 ms instead of 100."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 20)


@pytest.fixture(autouse=True)
def servers_end_briskly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a minute of waiting in all, otherwise."""
    monkeypatch.setattr("uvicorn.server.asyncio", Brisk())


@pytest.fixture
def house(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Iterator[House]:
    """A house that is checked when its test is over: no thread, no socket, no error in a log."""
    threads, sockets = set(threading.enumerate()), open_sockets()
    house = House(tmp_path)
    yield house
    gc.collect()
    left = [thread.name for thread in set(threading.enumerate()) - threads if thread.is_alive()]
    assert left == [], "threads are left"
    assert open_sockets() - sockets == set(), "sockets are left"
    errors = [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR]
    expected = {*house.expected_errors, ANYIO_CANCELLED}
    assert [text for text in errors if not any(part in text for part in expected)] == []


def open_sockets() -> set[str]:
    targets = []
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own descriptor
            targets.append(os.readlink(f"/proc/self/fd/{fd}"))
    return {target for target in targets if target.startswith("socket:")}
