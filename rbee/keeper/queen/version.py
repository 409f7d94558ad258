"""Can this rbeectl use the running queen? It may be older, running since before an upgrade."""

from __future__ import annotations

import re

from rbee import __version__
from rbee.errors import UPGRADE, VersionSkew
from rbee.scope import QUEEN_UNIT, Scope
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
"""Routes of 0.1.0, which every queen serves: its version is not checked before these."""


def restart(scope: Scope) -> str:
    """The command that restarts a queen which is older than the one that is installed."""
    return scope.systemctl(f"try-restart {QUEEN_UNIT}", as_root=True)


def numbers_of(version: str) -> list[int]:
    """'0.10.2' as [0, 10, 2], which is newer than '0.9'."""
    return [int(number) for number in re.findall("[0-9]+", version)]


def check_version(queen: str, scope: Scope, own: str = __version__) -> None:
    """VersionSkew if the queen's minor version is older than rbeectl's, and so may lack a route."""
    if numbers_of(queen)[:2] < numbers_of(own)[:2]:
        raise VersionSkew(
            f"the queen that runs on this machine is version {queen}, which is too old for rbeectl {own}",
            hint=f"{restart(scope)}\n"
            f"If it is still version {queen} after that: upgrade rbee-queen on this machine, {UPGRADE}",
        )
