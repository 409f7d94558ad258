"""A queen at work, with a local hive."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from rbee.scope import HIVE_UNIT
from rbee.systemd.daemon import Notifier
from tests.integration.queen.hives.local_hive import Hive, MakeQueen, Queen, Sorted, Tape
from tests.unit.played_systemd import PlayedSystemd
from tests.unit.queens import a_queen as open_queen


@pytest.fixture
def queen(tmp_path: Path, silent_notifier: Notifier) -> MakeQueen:
    """A queen at work; what she leaves behind fails the test."""

    @asynccontextmanager
    async def queen(
        *,
        begin: bool = True,
        interval: float = 15,
        grace: float = 5,
        systemd: PlayedSystemd | None = None,
        **config: Any,
    ) -> AsyncIterator[Queen]:
        tape, audit, systemd = Tape(), Tape(), systemd or PlayedSystemd()
        hive = Hive(tmp_path / "hive.sock", silent_notifier, lambda: product.hives)
        systemd.programs[HIVE_UNIT] = hive
        settings = {"heartbeat_interval": interval, "heartbeat_grace": grace, **config}
        opened = open_queen(tmp_path, Sorted(tape, audit), systemd=systemd, **settings)
        try:
            async with opened as product:
                if begin:
                    product.hives.begin()
                yield Queen(
                    product.hives, product.work, product.jobs, product.catalog, systemd, hive, tape, audit
                )
        finally:
            await hive.close()

    return queen


@pytest.fixture(autouse=True)
def no_task_of_hers_fails(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    yield
    assert [record for record in caplog.records if "a task of the queen failed" in record.getMessage()] == []
