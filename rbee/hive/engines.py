"""The engines of this machine, as the hive reports them."""

from __future__ import annotations

from pathlib import Path

from rbee.engines.dropins import load
from rbee.hive.threads import in_daemonic_thread
from rbee.scope import Scope
from rbee.wire.engines import Engines


async def engines_here(scope: Scope, root: Path = Path("/")) -> Engines:
    """Return the engines whose files are below `root`, and the problems of refused files."""

    def read() -> Engines:
        found = load(scope, root)
        return Engines(tuple(engine.view(root) for engine in found.engines.values()), found.problems)

    return await in_daemonic_thread(read)
