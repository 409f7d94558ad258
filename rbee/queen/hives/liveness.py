"""Whether a hive is alive right now: in RAM only, on the receiver's monotonic clock.

The catalog survives a reboot, this does not. Several witnesses feed one set of rules: a beat (Life.beat),
its absence (judge) and the word of systemd, or of a connection that closes, that a process ended (Life.end).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from rbee.config import JITTER
from rbee.errors import TEXT_LIMIT
from rbee.wire.hives import State

MISSES = 3
"""Intervals without a beat, plus the grace, after which the local hive is offline: systemd reports its death
at once."""

BEATS_A_SECOND = 50.0
"""Beats of hives on other machines that the queen takes; with more hives each beats less often."""


@dataclass(frozen=True, slots=True)
class Clocks:
    """`monotonic` in seconds judges; `wall_ms`, the time of day in milliseconds, is for eyes only."""

    monotonic: Callable[[], float] = time.monotonic
    wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000


@dataclass(frozen=True, slots=True)
class Patience:
    """Seconds of silence after which a hive is suspect, and offline; after which one that was never heard
    of is. `silent` is the reason of one that is offline by it."""

    suspect: float
    offline: float
    unheard: float
    silent: str


@dataclass(slots=True)
class Pace:
    """How often hives beat, in seconds: `interval` where they are few, `grace` for one that is late.

    `remote` is how many there are on other machines.
    """

    interval: float
    grace: float
    remote: int = 0

    @property
    def of_remote(self) -> float:
        """Seconds between two beats of a hive on another machine."""
        return max(self.interval, self.remote / BEATS_A_SECOND)

    def grace_of(self, interval: float) -> float:
        """Seconds by which a beat may be late: three beats' jitter at the least."""
        return max(self.grace, 3 * JITTER * interval)

    def patience_with_local(self, interval: float | None) -> Patience:
        """With the hive on the queen's machine, that was told to beat every `interval` seconds."""
        interval = interval or self.interval
        soon = interval + self.grace_of(interval)
        silent = f"no heartbeat for {MISSES} intervals of {interval:g} s"
        return Patience(soon, soon + (MISSES - 1) * interval, soon, silent)

    def patience_with_remote(self, interval: float | None) -> Patience:
        """With one on another machine, of whose death nobody but its connection tells."""
        interval = interval or self.interval
        grace = self.grace_of(interval)
        offline = interval + grace
        return Patience(interval + grace / 2, offline, offline, f"no heartbeat for {offline:g} s")


class Life:
    """What is known of one hive's life. Each change of its state is counted in `tally`.

    `heard` is the monotonic second of the last sign of life, or of the moment from which one is waited
    for; `since_ms` and `last_beat_ms` are wall clock; `instance` is the process that beat last, and
    `version` what it said it is; `interval` in seconds is the beat that it was told to keep, None before
    the first; `skew_ms` is how far its clock was ahead.
    """

    __slots__ = (
        "_clocks", "_tally", "heard", "instance", "interval", "last_beat_ms", "reason", "since_ms",
        "skew_ms", "state", "version",
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
        self.skew_ms: int | None = None
        tally[state] += 1

    def forget(self) -> None:
        """Count it no more."""
        self._tally[self.state] -= 1

    @property
    def silence(self) -> float:
        """Seconds since it was heard of."""
        return self._clocks.monotonic() - self.heard

    def set(self, state: State, reason: str) -> bool:
        """Put it into a state; False where it is in that state for that reason already.

        A reason may have a hive's own words in it, and is cut to what a HiveView takes.
        """
        reason = reason[:TEXT_LIMIT]
        if (self.state, self.reason) == (state, reason):
            return False
        if state != self.state:
            self.since_ms = self._clocks.wall_ms()
            self._tally[self.state] -= 1
            self._tally[state] += 1
        if state == "online":  # it has just shown that it lives, by a beat or by an answer
            self.heard = self._clocks.monotonic()
        self.state, self.reason = state, reason
        return True

    def lateness(self, instance: str, interval: float) -> float | None:
        """Seconds since this process's beat was due, less than 0 before; None for its first one.

        `interval` is for one that was told none yet.
        """
        if self.instance != instance:
            return None
        return self.silence - (self.interval or interval)

    def beat(self, instance: str, version: str | None, interval: float, skew_ms: int | None) -> bool:
        """Note a beat, after which the next is due in `interval` seconds; is it the first of its process?"""
        is_first = self.instance != instance
        self.heard = self._clocks.monotonic()
        self.last_beat_ms = self._clocks.wall_ms()
        self.instance, self.version, self.interval, self.skew_ms = instance, version, interval, skew_ms
        return is_first

    def end(self, reason: str, *, is_final: bool = False) -> bool:
        """Note that the hive's process is gone; False where that is known.

        A final reason takes the place of an earlier one.
        """
        # Also of one that is offline: it may have beaten since, and nobody has judged it yet.
        self.instance = None
        if self.state == "offline" and not is_final:
            return False
        return self.set("offline", reason)

    def judge(self, patience: Patience) -> bool:
        """Judge by silence: has that changed its state?"""
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
        """Seconds until silence changes its state; None for a state that silence does not change."""
        limits = {"unknown": patience.unheard, "online": patience.suspect, "suspect": patience.offline}
        limit = limits.get(self.state)
        return None if limit is None else limit - self.silence
