"""How much of the queen's time, and of what she records, one machine gets.

Whoever is not an operator may lie, and as fast as the network carries it. So what a machine has her do
beyond taking a beat is counted, a hive's by its name and a stranger's by its address, and what repeats
is narrated once, and then once a minute with how often it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network

from rbee.narration import HIVE_RESTRAINED, Event, Narrator

KEYS_MAX = 4096
"""Machines of which an allowance knows what they have used; the one that asked longest ago has all again."""

SOURCES_MAX = 256
"""Machines whose repetitions are folded each by itself; those of all others are folded together."""

AT_ONCE = 5
"""Narrated lines of one kind and one machine that are told as they come."""

WINDOW = 60.0
"""Seconds until it is told how many came after those."""

OTHERS = "other addresses"


@dataclass(frozen=True, slots=True)
class Bound:
    """`burst` at once, and then one in `every` seconds."""

    burst: int
    every: float


JOINS = Bound(20, 6.0)
"""Joins of one address that are refused, after which none is looked at: /64 for IPv6."""

STREAMS = Bound(30, 10.0)
"""Times that a hive connects."""

LOOKS = Bound(20, 10.0)
"""Times that the queen asks a hive for its devices because its beats say so. An honest hive beats, and
so says so, every 15 s."""

LINES = Bound(128, 5.0)
"""Lines of a hive that go into the events and into a story."""

RENEWALS = Bound(5, 60.0)
"""Certificates that are signed for a hive, beside the one that it joined with."""


class Allowance:
    """What each machine has left of a bound."""

    def __init__(self, bound: Bound, clock: Callable[[], float] = time.monotonic) -> None:
        self._bound = bound
        self._clock = clock
        self._full_at: dict[str, float] = {}
        """When each will have all of its burst again, the one that asked last at the end."""

    def has(self, key: str) -> bool:
        """Is there one left?"""
        ahead = self._full_at.get(key, 0.0) - self._clock()
        return ahead <= (self._bound.burst - 1) * self._bound.every

    def take(self, key: str) -> bool:
        """Use one; False where there is none left."""
        if not self.has(key):
            return False
        full_at = max(self._full_at.pop(key, 0.0), self._clock())
        self._full_at[key] = full_at + self._bound.every
        if len(self._full_at) > KEYS_MAX:
            del self._full_at[next(iter(self._full_at))]
        return True

    def renew(self, key: str) -> None:
        """Let one have all of its burst again."""
        self._full_at.pop(key, None)


@dataclass(slots=True)
class _Told:
    """What was told of a kind and a source in the present window."""

    event: Event
    text: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    at_once: int = 0
    more: int = 0
    timer: asyncio.TimerHandle | None = None


class Folded:
    """Narrates AT_ONCE lines of a kind and a source, and of the rest, once each WINDOW, the number."""

    def __init__(self, narrator: Narrator) -> None:
        self._narrator = narrator
        self._told: dict[tuple[str, str], _Told] = {}

    def tell(self, event: Event, text: str, *, source: str, **fields: str) -> None:
        """`source` is the hive, or the address, that has it told."""
        told = self._of(event, source)
        if told.at_once < AT_ONCE:
            told.at_once += 1
            self._narrator.narrate(event, text, **fields)
        else:
            told.more += 1
            told.text, told.fields = text, fields

    def close(self) -> None:
        """Tell what is still to be told."""
        for told in self._told.values():
            if told.timer is not None:
                told.timer.cancel()
            self._tell_more(told)
        self._told.clear()

    def _of(self, event: Event, source: str) -> _Told:
        key = (event.name, source)
        if key not in self._told and len(self._told) >= SOURCES_MAX:
            key = (event.name, OTHERS)
        if key not in self._told:
            self._told[key] = told = _Told(event)
            told.timer = asyncio.get_running_loop().call_later(WINDOW, self._is_over, key)
        return self._told[key]

    def _is_over(self, key: tuple[str, str]) -> None:
        told = self._told[key]
        if not told.more:
            del self._told[key]
            return
        self._tell_more(told)
        # It goes on: nothing is told as it comes until a window was quiet.
        told.timer = asyncio.get_running_loop().call_later(WINDOW, self._is_over, key)

    def _tell_more(self, told: _Told) -> None:
        if told.more:
            times = "time" if told.more == 1 else "times"
            text = f"{told.text} (the same {told.more} {times} more within {WINDOW:g} s)"
            self._narrator.narrate(told.event, text, **told.fields)
            told.more = 0


class Restraint:
    """The allowances, and the folded narrator, that the queen's rooms share."""

    def __init__(self, narrator: Narrator, clock: Callable[[], float] = time.monotonic) -> None:
        self.folded = Folded(narrator)
        self.joins = Allowance(JOINS, clock)
        self.streams = Allowance(STREAMS, clock)
        self.looks = Allowance(LOOKS, clock)
        self.lines = Allowance(LINES, clock)
        self.renewals = Allowance(RENEWALS, clock)

    def beyond(self, hive_id: str, what: str) -> None:
        """A hive does something more often than is taken: `what`, as the end of a sentence about it."""
        text = f"the beehive {hive_id} {what}"
        self.folded.tell(HIVE_RESTRAINED, text, source=hive_id, hive=hive_id)

    def close(self) -> None:
        self.folded.close()


def network_of(address: str) -> str:
    """What counts as one address: of IPv6 a /64, of which one machine may have all."""
    parsed = ip_address(address)
    if isinstance(parsed, IPv6Address):
        return str(ip_network(f"{parsed}/64", strict=False))
    return address
