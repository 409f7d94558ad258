"""Rate limits: how much of the queen's time and records one machine may use.

A machine that is not an operator's may send false data, as fast as the network allows. What a machine causes
beyond a beat is therefore counted, by name for a hive and by address for an unauthenticated peer, and a
repeated line is narrated a few times and then once a minute with a count.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv6Address, ip_address, ip_network
from typing import NamedTuple

from rbee.narration import HIVE_RESTRAINED, Event, Narrator

KEYS_MAX = 4096
"""Machines whose use an allowance remembers; beyond that the one that asked longest ago is forgotten."""

SOURCES_MAX = 256
"""Machines whose repeated lines are folded separately; those of all others are folded together."""

AT_ONCE = 5
"""Lines of one kind and one machine that are narrated as they come."""

WINDOW = 60.0
"""Seconds after which the number of further lines is narrated."""

OTHERS = "other addresses"


class Bound(NamedTuple):
    """`burst` at once, and then one every `every` seconds."""

    burst: int
    every: float


JOINS = Bound(20, 6.0)
"""Refused joins from one address (/64 for IPv6) before further joins are refused unread."""

STREAMS = Bound(30, 10.0)
"""Connections of a hive."""

DETECTIONS = Bound(20, 10.0)
"""Requests to a hive for its devices because a beat reports a change. By default a hive beats every 15 s."""

LINES = Bound(128, 5.0)
"""Lines of a hive that are passed on to the events and to a story."""

RENEWALS = Bound(5, 60.0)
"""Certificates signed for a hive, beside the one that it joined with."""


class Allowance:
    """How much of a bound each machine has left."""

    def __init__(self, bound: Bound, clock: Callable[[], float] = time.monotonic) -> None:
        self._bound = bound
        self._clock = clock
        self._full_at: dict[str, float] = {}
        """Key -> the monotonic second at which its burst is full again, in the order of the last take()."""

    def has(self, key: str) -> bool:
        """Is there one left?"""
        ahead = self._full_at.get(key, 0.0) - self._clock()
        return ahead <= (self._bound.burst - 1) * self._bound.every

    def take(self, key: str) -> bool:
        """Use one; False if none is left."""
        if not self.has(key):
            return False
        full_at = max(self._full_at.pop(key, 0.0), self._clock())
        self._full_at[key] = full_at + self._bound.every
        if len(self._full_at) > KEYS_MAX:
            del self._full_at[next(iter(self._full_at))]
        return True

    def renew(self, key: str) -> None:
        """Restore the full burst."""
        self._full_at.pop(key, None)


@dataclass(slots=True)
class _Window:
    """The lines of one kind and one source in the present window."""

    event: Event
    text: str = ""
    fields: dict[str, str] = field(default_factory=dict)
    at_once: int = 0
    more: int = 0
    timer: asyncio.TimerHandle | None = None


class Folded:
    """Narrates AT_ONCE lines of a kind and a source, then once each WINDOW how many more there were."""

    def __init__(self, narrator: Narrator) -> None:
        self._narrator = narrator
        self._windows: dict[tuple[str, str], _Window] = {}

    def report(self, event: Event, text: str, *, source: str, **fields: str) -> None:
        """Narrate a line, or count it; `source` is the hive or the address that caused it."""
        window = self._window(event, source)
        if window.at_once < AT_ONCE:
            window.at_once += 1
            self._narrator.narrate(event, text, **fields)
        else:
            window.more += 1
            window.text, window.fields = text, fields

    def close(self) -> None:
        """Narrate the counts that are still pending."""
        for window in self._windows.values():
            if window.timer is not None:
                window.timer.cancel()
            self._narrate_count(window)
        self._windows.clear()

    def _window(self, event: Event, source: str) -> _Window:
        key = (event.name, source)
        if key not in self._windows and len(self._windows) >= SOURCES_MAX:
            key = (event.name, OTHERS)
        if key not in self._windows:
            self._windows[key] = window = _Window(event)
            window.timer = asyncio.get_running_loop().call_later(WINDOW, self._is_over, key)
        return self._windows[key]

    def _is_over(self, key: tuple[str, str]) -> None:
        window = self._windows[key]
        if not window.more:
            del self._windows[key]
            return
        self._narrate_count(window)
        # Another window follows: until one passes without lines, none is narrated as it comes.
        window.timer = asyncio.get_running_loop().call_later(WINDOW, self._is_over, key)

    def _narrate_count(self, window: _Window) -> None:
        if window.more:
            times = "time" if window.more == 1 else "times"
            text = f"{window.text} (the same {window.more} {times} more within {WINDOW:g} s)"
            self._narrator.narrate(window.event, text, **window.fields)
            window.more = 0


class Restraint:
    """The queen's allowances, and its narrator for lines that may repeat."""

    def __init__(self, narrator: Narrator, clock: Callable[[], float] = time.monotonic) -> None:
        self.folded = Folded(narrator)
        self.joins = Allowance(JOINS, clock)
        self.streams = Allowance(STREAMS, clock)
        self.detections = Allowance(DETECTIONS, clock)
        self.lines = Allowance(LINES, clock)
        self.renewals = Allowance(RENEWALS, clock)

    def may_detect(self, hive_id: str) -> bool:
        """May the queen ask a hive for its devices once more now, because its beats report a change?"""
        may = self.detections.take(hive_id)
        if not may:
            self.beyond(hive_id, "reports changes of its devices more often than the queen asks for them")
        return may

    def beyond(self, hive_id: str, what: str) -> None:
        """Narrate that a hive exceeds a limit; `what` ends the sentence 'the beehive NAME ...'."""
        text = f"the beehive {hive_id} {what}"
        self.folded.report(HIVE_RESTRAINED, text, source=hive_id, hive=hive_id)

    def close(self) -> None:
        """Narrate the pending counts."""
        self.folded.close()


def network_of(address: str) -> str:
    """Return what counts as one address: for IPv6 its /64, all of which one machine may have."""
    parsed = ip_address(address)
    if isinstance(parsed, IPv6Address):
        return str(ip_network(f"{parsed}/64", strict=False))
    return address
