"""Whether the queen who runs is one that this rbeectl can ask: she may run since before an upgrade."""

from __future__ import annotations

import re

from rbee import __version__
from rbee.errors import UPGRADE, VersionSkew
from rbee.scope import QUEEN_UNIT
from rbee.wire.routes import QueenRoutes

SINCE_EVER = frozenset(
    route.name
    for route in (
        QueenRoutes.HEALTH,
        QueenRoutes.ADD_HIVE,
        QueenRoutes.REMOVE_HIVE,
        QueenRoutes.HIVES,
        QueenRoutes.HIVE,
        QueenRoutes.SHUTDOWN,
    )
)
"""Routes of 0.1.0, which every queen serves: for these nobody asks for her version first."""

RESTART = f"sudo systemctl try-restart {QUEEN_UNIT}"
"""What has a queen of an older version run as the one that is installed."""


def numbers_of(version: str) -> list[int]:
    """'0.10.2' as [0, 10, 2], which is newer than '0.9'."""
    return [int(number) for number in re.findall("[0-9]+", version)]


def check_version(queen: str, own: str = __version__) -> None:
    """VersionSkew for a queen whose minor version is older than rbeectl's: routes came in between."""
    if numbers_of(queen)[:2] < numbers_of(own)[:2]:
        raise VersionSkew(
            f"the queen of this machine runs as version {queen}, and rbeectl {own} asks for what came later",
            hint=f"{RESTART}\nIf she is of version {queen} then, too: upgrade rbee-queen on this machine, "
            f"{UPGRADE}",
        )
