"""Whether a hive is alive right now: in RAM only, on the queen's monotonic clock.

The catalog survives a reboot, this does not. The state changes by a beat, by its absence (Life.judge), and
by the report of systemd or of a closed connection that a process ended (Life.end).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from rbee.config import JITTER
from rbee.errors import TEXT_LIMIT
from rbee.wire.hives import State

MISSES = 3
"""Intervals without a beat, plus the grace, until the local hive is offline; systemd reports its death."""

BEATS_A_SECOND = 700.0
"""Beats of remote hives that the queen takes; with more hives each beats less often."""


class Clocks(NamedTuple):
    """`monotonic` in seconds, to judge by; `wall_ms` in milliseconds since the epoch, to be shown."""

    monotonic: Callable[[], float] = time.monotonic
    wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000


class Patience(NamedTuple):
    """Seconds of silence after which a hive is suspect, and offline; `unheard` are those after which one
    without any heartbeat is offline. `silent` is the reason for offline."""

    suspect: float
    offline: float
    unheard: float
    silent: str


@dataclass(slots=True)
class Pace:
    """How often hives beat, in seconds: the `interval` while they are few, and the `grace` for a late beat.

    `remote` is the number of remote hives.
    """

    interval: float
    grace: float
    remote: int = 0

    @property
    def of_remote(self) -> float:
        """Seconds between two beats of a remote hive."""
        return max(self.interval, self.remote / BEATS_A_SECOND)

    def grace_of(self, interval: float) -> float:
        """Return the seconds by which a beat may be late: at least three times the jitter."""
        return max(self.grace, 3 * JITTER * interval)

    def patience_with_local(self, interval: float | None) -> Patience:
        """Return the patience with the local hive, which beats every `interval` seconds."""
        interval = interval or self.interval
        soon = interval + self.grace_of(interval)
        silent = f"no heartbeat for {MISSES} intervals of {interval:g} s"
        return Patience(soon, soon + (MISSES - 1) * interval, soon, silent)

    def patience_with_remote(self, interval: float | None) -> Patience:
        """Return the patience with a remote hive, whose death only its connection can report."""
        interval = interval or self.interval
        grace = self.grace_of(interval)
        offline = interval + grace
        return Patience(interval + grace / 2, offline, offline, f"no heartbeat for {offline:g} s")


class Life:
    """The liveness of one hive. Each change of its state is counted in `tally`.

    `heard` is the monotonic second of the last sign of life, or of the moment from which one is expected;
    `since_ms` and `last_beat_ms` are wall clock; `instance` is the process of the last beat, and `version`
    the one in it; `interval` in seconds is the one in the last acknowledgement, None before the first.
    """

    __slots__ = (
        "_clocks", "_tally", "heard", "instance", "interval", "last_beat_ms", "reason", "since_ms",
        "state", "version",
    )  # fmt: skip

    def __init__(self, state: State, reason: str, clocks: Clocks, tally: Counter[State]) -> None:
        self._clocks = clocks
        self._tally = tally
        self.state: State = state
        self.reason = reason
        self.since_ms = clocks.wall_ms()
        self.heard = clocks.monotonic()
        self.last_beat_ms: int | None = None
        self.instance: str | None = None
        self.version: str | None = None
        self.interval: float | None = None
        tally[state] += 1

    def forget(self) -> None:
        """Remove it from the tally."""
        self._tally[self.state] -= 1

    @property
    def silence(self) -> float:
        """Seconds since the last sign of life."""
        return self._clocks.monotonic() - self.heard

    def set(self, state: State, reason: str) -> bool:
        """Set the state; False if it has that state and reason already.

        A reason may contain text from a hive, and is cut to what a HiveView takes.
        """
        reason = reason[:TEXT_LIMIT]
        if (self.state, self.reason) == (state, reason):
            return False
        if state != self.state:
            self.since_ms = self._clocks.wall_ms()
            self._tally[self.state] -= 1
            self._tally[state] += 1
        if state == "online":  # a beat or an answer has just shown that it lives
            self.heard = self._clocks.monotonic()
        self.state, self.reason = state, reason
        return True

    def lateness(self, instance: str, interval: float) -> float | None:
        """Return the seconds since this process's beat was due, negative if early; None for its first.

        `interval` applies if none was acknowledged yet.
        """
        if self.instance != instance:
            return None
        return self.silence - (self.interval or interval)

    def beat(self, instance: str, version: str | None, interval: float) -> bool:
        """Note a beat, the next due in `interval` seconds; return whether it is its process's first."""
        is_first = self.instance != instance
        self.heard = self._clocks.monotonic()
        self.last_beat_ms = self._clocks.wall_ms()
        self.instance, self.version, self.interval = instance, version, interval
        return is_first

    def end(self, reason: str, *, is_final: bool = False) -> bool:
        """Note that the hive's process is gone; False if that is known already.

        A final reason replaces an earlier one.
        """
        # Even if it is offline: since then it may have sent a beat, which has not changed the state yet.
        self.instance = None
        if self.state == "offline" and not is_final:
            return False
        return self.set("offline", reason)

    def judge(self, patience: Patience) -> bool:
        """Judge by silence; return whether that has changed the state."""
        silence = self.silence
        if self.state == "unknown":
            return silence > patience.unheard and self.set("offline", "no heartbeat since the queen started")
        if self.state not in ("online", "suspect"):
            return False
        if silence > patience.offline:
            return self.set("offline", patience.silent)
        if silence > patience.suspect and self.state == "online":
            return self.set("suspect", f"no heartbeat for more than {patience.suspect:g} s")
        return False

    def due(self, patience: Patience) -> float | None:
        """Return the seconds until silence changes the state; None if it does not change this state."""
        limits = {"unknown": patience.unheard, "online": patience.suspect, "suspect": patience.offline}
        limit = limits.get(self.state)
        return None if limit is None else limit - self.silence
