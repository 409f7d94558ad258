"""A queen that is open to other machines."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.unit.queen.joined import Queen, a_queen


@pytest.fixture
@asynccontextmanager
async def queen(tmp_path: Path) -> AsyncIterator[Queen]:
    """A queen who is open."""
    async with a_queen(tmp_path / "state") as queen:
        await queen.access.set(True)
        yield queen
