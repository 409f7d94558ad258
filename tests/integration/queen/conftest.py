"""A queen that is served on a Unix socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rbee.systemd.daemon import Notifier
from tests.integration.queen.served_queen import Served, a_queen


@pytest.fixture
@asynccontextmanager
async def queen(tmp_path: Path, silent_notifier: Notifier) -> AsyncIterator[Served]:
    """A queen who is served."""
    async with a_queen(tmp_path, silent_notifier) as queen:
        yield queen
