"""A queen at work beside a systemd that is played, with everything else her own."""

from __future__ import annotations

import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from rbee.config import Config, QueenConfig
from rbee.narration import Narrator
from rbee.queen.queen import Queen, Site
from rbee.scope import SYSTEM, Scope
from rbee.systemd.daemon import Notifier
from tests.unit.played_systemd import PlayedSystemd


def notifier_outside_systemd() -> Notifier:
    with warnings.catch_warnings():
        # sdnotify makes its socket before it looks where to, and drops it.
        warnings.simplefilter("ignore", ResourceWarning)
        return Notifier()


@asynccontextmanager
async def a_queen(
    folder: Path,
    journal: Narrator | None = None,
    *,
    systemd: PlayedSystemd | None = None,
    scope: Scope = SYSTEM,
    **settings: Any,
) -> AsyncIterator[Queen]:
    """Her state directory is `folder`, which is made; the local hive's socket is hive.sock in it.

    `settings` are QueenConfig's. No hive's user is known here, or whoever runs the tests could be that.
    """
    folder.mkdir(exist_ok=True)
    played = systemd or PlayedSystemd()
    site = Site(scope, folder, folder / "hive.sock", played, find_credentials=lambda: None)
    opened = Queen.open(
        Config(replace(QueenConfig(jobs_max=16), **settings)),
        site,
        played,  # type: ignore[arg-type]  # which stands where a Bus does
        notifier_outside_systemd(),
        journal or Narrator(),
    )
    try:
        async with opened as queen:
            yield queen
    finally:
        await played.close()
