"""What every room's tests share."""

from __future__ import annotations

import asyncio
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

from rbee.systemd.daemon import Notifier

# No deadline: a busy machine is no bug. No database and the same examples in each run: a red run stays red.
hypothesis.settings.register_profile("unit", deadline=None, max_examples=25, database=None, derandomize=True)
hypothesis.settings.load_profile("unit")


class _QuickAsyncio:
    """asyncio as uvicorn sees it, on a clock that runs 20 times as fast."""

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, delay: float) -> None:
        await asyncio.sleep(delay / 20)


@pytest.fixture(autouse=True)
def quick_uvicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvicorn looks every 0.1 s whether it should end, and here it ends some hundred times."""
    monkeypatch.setattr("uvicorn.server.asyncio", _QuickAsyncio())


@pytest.fixture
def systemd_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The receiving end of $NOTIFY_SOCKET."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(path))
        receiver.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield receiver


@pytest.fixture
def notifier(systemd_socket: socket.socket) -> Iterator[Notifier]:
    """A notifier that `systemd_socket` hears."""
    notifier = Notifier()
    yield notifier
    notifier._notifier.socket.close()


@pytest.fixture
def silent_notifier(monkeypatch: pytest.MonkeyPatch) -> Notifier:
    """A notifier outside systemd."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    with warnings.catch_warnings():
        # sdnotify makes its socket before it looks where to, and drops it.
        warnings.simplefilter("ignore", ResourceWarning)
        return Notifier()
