"""The engines of the fleet, asked of its hives."""

from __future__ import annotations

import asyncio

from rbee.errors import RbeeError
from rbee.queen.hives.hive import Hive
from rbee.queen.hives.hives import Hives
from rbee.wire.engines import FleetEngines, HiveEngines

TIMEOUT = 5.0
"""Seconds for a hive's answer; one that does not answer by then is not chosen for a worker either."""

AT_ONCE = 64
"""Hives that are asked at once."""


async def engines_of(hives: Hives, name: str | None = None) -> FleetEngines:
    """Return the engines of all hives that are online, or of one, and why those of others are not known.

    Raises UnknownHive.
    """
    turns = asyncio.Semaphore(AT_ONCE)
    if name is not None:
        return FleetEngines((await _engines(hives.hive(name), turns),))
    asked = [hive for name in hives.names if (hive := hives.find(name)) is not None]
    return FleetEngines(tuple(await asyncio.gather(*(_engines(hive, turns) for hive in asked))))


async def _engines(hive: Hive, turns: asyncio.Semaphore) -> HiveEngines:
    life = hive.standing.life
    if not hive.standing.is_online:
        return HiveEngines(hive.id, (), reason=f"the beehive is {life.state}: {life.reason}")
    try:
        async with turns:
            answer = await (await hive.reach()).engines(timeout=TIMEOUT)
    except RbeeError as error:
        return HiveEngines(hive.id, (), reason=f"it did not answer: {error.message}")
    return HiveEngines(hive.id, answer.engines, answer.problems)
