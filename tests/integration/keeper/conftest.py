"""rbeectl, run in this process, beside a systemd that is played, with a queen that is served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from rbee.server.app import Handler, build_app
from rbee.systemd.daemon import Notifier
from rbee.wire.routes import Route
from tests.integration.unix_http import served
from tests.unit.keeper.conftest import awake, bus, executed, log, rbeectl
from tests.unit.keeper.doubles import OF_THIS_VERSION, Ran

__all__ = ["awake", "bus", "executed", "log", "rbeectl", "with_queen"]


@pytest.fixture
def with_queen(tmp_path: Path, silent_notifier: Notifier) -> Callable[..., Ran]:
    """Run something that blocks while a queen with these handlers answers."""

    def run(handlers: dict[Route, Handler], work: Callable[[], Ran]) -> Ran:
        async def scenario() -> Ran:
            (tmp_path / "queen.sock").unlink(missing_ok=True)
            app = build_app("a queen", "1", {**OF_THIS_VERSION, **handlers})
            async with served(app, tmp_path / "queen.sock", silent_notifier):
                return await asyncio.to_thread(work)

        return asyncio.run(scenario())

    return run
