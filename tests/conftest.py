"""A test may be a coroutine: it runs in an event loop of its own, within a deadline, and leaves no task.

Here are also the fixtures that unit and integration tests share."""

from __future__ import annotations

import asyncio
import inspect
import socket
import warnings
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from rbee.systemd.daemon import Notifier
from tests.handing_out import InGroups

DEADLINE = 60.0
"""Seconds after which such a test has hung; `pytest.mark.deadline(seconds)` says another number."""


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "deadline(seconds): after which a coroutine test has hung")


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> InGroups | None:
    """With tests/run's --dist=loadgroup."""
    return InGroups(config, log) if config.getvalue("dist") == "loadgroup" else None


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a coroutine test. It has of a fixture that is an async context what that yields."""
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        contexts = [
            name for name, value in arguments.items() if isinstance(value, AbstractAsyncContextManager)
        ]
        assert contexts == [], "only a coroutine can enter these"
        return None
    marker = pyfuncitem.get_closest_marker("deadline")
    asyncio.run(run(pyfuncitem, arguments, marker.args[0] if marker else DEADLINE))
    return True


async def run(test: pytest.Function, arguments: dict[str, Any], deadline: float) -> None:
    async with asyncio.timeout(deadline), AsyncExitStack() as contexts:
        for name, argument in arguments.items():
            if isinstance(argument, AbstractAsyncContextManager):
                arguments[name] = await contexts.enter_async_context(argument)
        await test.obj(**arguments)
    if left := asyncio.all_tasks() - {asyncio.current_task()}:
        # What was cancelled last, or is a generator that nobody reads any more, is about to end.
        _, left = await asyncio.wait(left, timeout=0.1)
    assert left == set(), "tasks are left"


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
