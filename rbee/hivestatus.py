"""A hive's StatusText about its queen: the hive writes it, rbeectl reads it.

Any user may read it over D-Bus, but only root and the hive's own user may read the membership.
"""

from __future__ import annotations

import re
from typing import NamedTuple

_BEATS = re.compile(r"queen at (\S+), (?:heartbeat every|last beat) ")  # "last beat" is that of 0.4.0
_NO_BEAT = re.compile(r"queen at (\S+), no beat yet")
_TROUBLE = re.compile(r"queen at (\S+): (.+)")
_WAITS = re.compile(r"waits for the queen at (\S+)")


class QueenLink(NamedTuple):
    """A hive's link to its queen, as its StatusText has it.

    `queen` is HOST:PORT, or the path of a queen's socket on this machine. `trouble` is why the last
    heartbeat did not arrive.
    """

    queen: str
    is_connected: bool = False
    trouble: str | None = None

    @property
    def is_remote(self) -> bool:
        """Is the queen on another machine?"""
        return not self.queen.startswith("/")


def no_beat_yet(queen: object) -> str:
    """Return the text before the first heartbeat was acknowledged."""
    return f"queen at {queen}, no beat yet"


def beats(queen: object, interval: float) -> str:
    """Return the text while heartbeats are acknowledged; `interval` in seconds.

    It does not change with each heartbeat: systemd signals a change over D-Bus, which wakes all listeners.
    """
    return f"queen at {queen}, heartbeat every {interval:g} s"


def has_trouble(queen: object, message: str) -> str:
    """Return the text after a heartbeat failed with a message."""
    return f"queen at {queen}: {message}"


def waits(queen: object) -> str:
    """Return the text of rbee-hive-redial.service, which waits for the queen to answer."""
    return f"waits for the queen at {queen}"


def read(text: str) -> QueenLink | None:
    """Return the link that a status text describes; None if it is about something else."""
    if match := _BEATS.match(text):
        return QueenLink(match[1], is_connected=True)
    if match := _NO_BEAT.match(text) or _WAITS.match(text):
        return QueenLink(match[1])
    if match := _TROUBLE.match(text):
        return QueenLink(match[1], trouble=match[2])
    return None
