"""Whose the hive on this machine is: it may be another queen's, or send its beats under another name."""

from __future__ import annotations

from rbee import config
from rbee.client.link import HiveClient
from rbee.contracts import LOCALHOST, HiveHealth
from rbee.errors import RbeeError, UnitFailed
from rbee.systemd import HIVE_UNIT

HEALTH_TIMEOUT = 2.0
"""Seconds in which the hive answers; one that hangs is judged by its heartbeats."""


async def check_own(hive: HiveClient) -> None:
    """UnitFailed if the hive that runs here will never send this queen a heartbeat as localhost."""
    try:
        health = await hive.health(timeout=HEALTH_TIMEOUT)
    except RbeeError:
        return
    if (fault := fault_of(health)) is not None:
        raise fault


async def place_of_beats(hive: HiveClient) -> str:
    """The end of a sentence about beats that do not come; '' if they go where a queen usually listens."""
    try:
        health = await hive.health(timeout=HEALTH_TIMEOUT)
    except RbeeError:
        return ""
    if health.queen in (None, str(config.QUEEN_SOCKET)):
        return ""
    return f"; it sends them to {health.queen}, by [Hive] Queen= in {_where_set('Queen')}"


def fault_of(health: HiveHealth) -> UnitFailed | None:
    if health.is_remote_queen:
        return UnitFailed(
            f"the hive on this machine is the hive {health.hive_id} of the queen at {health.queen}",
            hint="To make it this queen's hive: sudo rbeectl doctor --fix; rbeectl add-hive localhost\n"
            "To leave it with the other queen: sudo apt remove rbee-queen",
        )
    if health.hive_id not in (None, LOCALHOST):
        place = _where_set("Id")
        return UnitFailed(
            f"the hive on this machine calls itself {health.hive_id}, by [Hive] Id= in {place}: "
            f"its queen knows it as {LOCALHOST} only",
            hint=f"Delete the line Id={health.hive_id} in {place}; then: sudo systemctl restart {HIVE_UNIT}; "
            f"rbeectl add-hive {LOCALHOST}",
        )
    return None


def _where_set(key: str) -> str:
    try:
        return str(config.where_set("Hive", key) or "rbee.conf")
    except (RbeeError, OSError):
        return "rbee.conf"  # it was changed since the hive has read it
