"""Queens and a hive that joins them."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from rbee.systemd.daemon import Notifier
from tests.unit.hive.joining import Hive, Queen, Result, run
from tests.unit.remote_queen import served_over_tcp


@pytest.fixture
def queen(tmp_path: Path) -> Queen:
    return Queen(tmp_path / "keys")


@pytest.fixture
def hive(tmp_path: Path) -> Hive:
    return Hive(tmp_path / "hive")


@pytest.fixture
def serving(silent_notifier: Notifier) -> Any:
    """Run what takes the ports of these queens while they answer."""

    def run_with(work: Callable[..., Coroutine[Any, Any, Result]], *queens: Queen) -> Result:
        async def scenario() -> Result:
            async with AsyncExitStack() as open_queens:
                ports = [
                    await open_queens.enter_async_context(
                        served_over_tcp(queen.app(), queen.authority.context(), silent_notifier)
                    )
                    for queen in queens
                ]
                return await work(*ports)

        return run(scenario())

    return run_with


@pytest.fixture
def member(queen: Queen, hive: Hive, serving: Any) -> str:
    """A hive that has joined; what its membership holds."""
    serving(lambda port: hive.join(queen, port), queen)
    return hive.path.read_text()


@pytest.fixture
def other(tmp_path: Path) -> Queen:
    return Queen(tmp_path / "other")
