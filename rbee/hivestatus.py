"""What a hive says of its queen in its unit's StatusText: the hive writes it, rbeectl reads it.

Anybody may read that over D-Bus; the membership is for root and for the hive's own user.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_BEATS = re.compile(r"queen at (\S+), last beat ")
_NO_BEAT = re.compile(r"queen at (\S+), no beat yet")
_TROUBLE = re.compile(r"queen at (\S+): (.+)")
_WAITS = re.compile(r"waits for the queen at (\S+)")


@dataclass(frozen=True, slots=True)
class QueenLink:
    """`queen` is HOST:PORT, or the path of a queen's socket on this machine.

    `trouble` is why the last heartbeat did not arrive.
    """

    queen: str
    is_connected: bool = False
    trouble: str | None = None

    @property
    def is_remote(self) -> bool:
        return not self.queen.startswith("/")


def no_beat_yet(queen: object) -> str:
    return f"queen at {queen}, no beat yet"


def beats(queen: object, at: str, interval: float) -> str:
    return f"queen at {queen}, last beat {at}, the next within {interval:g} s"


def has_trouble(queen: object, message: str) -> str:
    return f"queen at {queen}: {message}"


def waits(queen: object) -> str:
    return f"waits for the queen at {queen}"


def read(text: str) -> QueenLink | None:
    """What a status text says of the queen; None for one that says nothing of her."""
    if found := _BEATS.match(text):
        return QueenLink(found[1], is_connected=True)
    if found := _NO_BEAT.match(text) or _WAITS.match(text):
        return QueenLink(found[1])
    if found := _TROUBLE.match(text):
        return QueenLink(found[1], trouble=found[2])
    return None
