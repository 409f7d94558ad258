"""Queens and a hive that joins them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from rbee.systemd.daemon import Notifier
from tests.integration.hive.joining import Hive, Queen, ServeQueens
from tests.integration.remote_queen import served_over_tcp


@pytest.fixture
def queen(tmp_path: Path) -> Queen:
    return Queen(tmp_path / "keys")


@pytest.fixture
def hive(tmp_path: Path) -> Hive:
    return Hive(tmp_path / "hive")


@pytest.fixture
def serve_queens(silent_notifier: Notifier) -> ServeQueens:
    """Serve these queens; what is yielded are their ports."""

    @asynccontextmanager
    async def serve_queens(*queens: Queen) -> AsyncIterator[list[int]]:
        async with AsyncExitStack() as servers:
            yield [
                await servers.enter_async_context(
                    served_over_tcp(queen.app(), queen.authority.context(), silent_notifier)
                )
                for queen in queens
            ]

    return serve_queens


@pytest.fixture
@asynccontextmanager
async def member(queen: Queen, hive: Hive, serve_queens: ServeQueens) -> AsyncIterator[str]:
    """A hive that has joined; what its membership holds."""
    async with serve_queens(queen) as (port,):
        await hive.join(queen, port)
        yield hive.path.read_text()


@pytest.fixture
def other(tmp_path: Path) -> Queen:
    return Queen(tmp_path / "other")
