"""Who is alive, right now: in RAM only, on the receiver's monotonic clock.

The catalog survives a reboot, this does not. Several witnesses feed one set of rules: a
beat, its absence (`sweep`), and systemd's word that a process ended (`end`).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from rbee.config import JITTER
from rbee.contracts import LOCALHOST, State, spelled
from rbee.errors import TEXT_LIMIT

MISSES = 3
"""Intervals without a beat, plus the grace, after which the local hive is offline.

systemd tells of its death at once. Of one on another machine a single interval and the grace must do.
"""

BEATS_A_SECOND = 50.0
"""Beats of hives on other machines that the queen will have; with more hives each beats more seldom."""


@dataclass(frozen=True, slots=True)
class Life:
    """What is known of a hive's life. `since_ms` and `last_beat_ms` are wall clock, for eyes only.

    `heard` is the monotonic second of the last sign of life, or of the moment from which
    one is waited for; `instance` is the process that beat last, and `version` what it said it is.
    `interval` in seconds is the beat that it was told to keep; a hive on another machine `is_remote`,
    and `skew_ms` is how far its clock was ahead.
    """

    state: State
    reason: str
    since_ms: int
    heard: float
    last_beat_ms: int | None = None
    instance: str | None = None
    version: str | None = None
    interval: float | None = None
    is_remote: bool = False
    skew_ms: int | None = None


class Registry:
    """`interval` and `grace` in seconds, for few hives; `clock` is monotonic, `wall_ms` the time of day."""

    def __init__(
        self,
        *,
        interval: float,
        grace: float,
        clock: Callable[[], float] = time.monotonic,
        wall_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.interval = interval
        self.grace = grace
        self._clock = clock
        self._wall_ms = wall_ms
        self._lives: dict[str, Life] = {}
        self._remote: set[str] = set()

    def spelled(self, name: str) -> str:
        """How the hive of that name spells it; the name itself where there is none."""
        return name if name in self._lives else spelled(name, (LOCALHOST, *self._lives))

    def life(self, hive_id: str) -> Life | None:
        return self._lives.get(hive_id)

    def track_remote(self, hive_id: str) -> None:
        """This hive, which has a life already, is on another machine."""
        self._lives[hive_id] = replace(self._lives[hive_id], is_remote=True)
        self._remote.add(hive_id)

    def remote(self) -> list[Life]:
        return [self._lives[hive_id] for hive_id in self._remote]

    def pace(self, hive_id: str) -> float:
        """Seconds between its beats from now on."""
        life = self._lives.get(hive_id)
        if life is None or not life.is_remote:
            return self.interval
        return max(self.interval, len(self._remote) / BEATS_A_SECOND)

    def grace_of(self, interval: float) -> float:
        """Seconds by which a beat may be late: three beats' jitter at the least."""
        return max(self.grace, 3 * JITTER * interval)

    def set(self, hive_id: str, state: State, reason: str) -> bool:
        """Put a hive into a state; False where it is in that state for that reason already.

        A reason may have a hive's own words in it, and is cut to what a HiveView takes.
        """
        reason = reason[:TEXT_LIMIT]
        old = self._lives.get(hive_id)
        if old is not None and (old.state, old.reason) == (state, reason):
            return False
        since_ms = old.since_ms if old is not None and old.state == state else self._wall_ms()
        if old is None:
            self._lives[hive_id] = Life(state, reason, since_ms, self._clock())
        else:
            # Whoever is found online has just shown that it lives, by a beat or by an answer.
            heard = self._clock() if state == "online" else old.heard
            self._lives[hive_id] = replace(old, state=state, reason=reason, since_ms=since_ms, heard=heard)
        return True

    def forget(self, hive_id: str) -> None:
        self._lives.pop(hive_id, None)
        self._remote.discard(hive_id)

    def lateness(self, hive_id: str, instance: str) -> float | None:
        """Seconds since this process's beat was due, less than 0 before; None for its first one."""
        life = self._lives.get(hive_id)
        if life is None or life.instance != instance:
            return None
        return self._clock() - life.heard - (life.interval or self.interval)

    def beat(
        self, hive_id: str, instance: str, version: str | None = None, *, skew_ms: int | None = None
    ) -> bool:
        """Note a beat, after which the next is due at pace(); True when it is the first of this process."""
        old = self._lives.get(hive_id)
        if old is None:
            old = Life("pending", "its first heartbeat has come", self._wall_ms(), 0.0)
        self._lives[hive_id] = replace(
            old,
            heard=self._clock(),
            last_beat_ms=self._wall_ms(),
            instance=instance,
            version=version,
            interval=self.pace(hive_id),
            skew_ms=skew_ms,
        )
        return old.instance != instance

    def end(self, hive_id: str, reason: str, *, is_final: bool = False) -> bool:
        """Note that the hive's process is gone; False where that is known.

        A final reason takes the place of an earlier one.
        """
        life = self._lives.get(hive_id)
        if life is None:
            return False
        # Also of one that is offline: it may have beaten since, and nobody has judged it yet.
        self._lives[hive_id] = replace(life, instance=None)
        if life.state == "offline" and not is_final:
            return False
        return self.set(hive_id, "offline", reason)

    def sweep(self) -> list[tuple[str, Life]]:
        """Judge by silence: the hives that became suspect or offline by it."""
        changed = []
        for hive_id, life in list(self._lives.items()):
            verdict = self._judge(life)
            if verdict is not None and verdict[0] != life.state:
                self.set(hive_id, *verdict)
                changed.append((hive_id, self._lives[hive_id]))
        return changed

    def next_verdict(self) -> float:
        """Seconds until silence can change a state: one interval at the most, for who comes meanwhile."""
        waits = [
            life.heard + self._due(life) - self._clock()
            for life in self._lives.values()
            if life.state in ("unknown", "online", "suspect")
        ]
        # A hair later than due, or the sweep comes a moment too early and again.
        return max(0.0, min([*waits, self.interval])) + 0.01

    def _judge(self, life: Life) -> tuple[State, str] | None:
        silence = self._clock() - life.heard
        suspect, offline = self._patience(life)
        if life.state == "unknown" and silence > self._due(life):
            return "offline", "not heard of since the queen woke"
        if life.state not in ("online", "suspect"):
            return None
        if silence > offline:
            interval = life.interval or self.interval
            if life.is_remote:
                return "offline", f"no heartbeat for {offline:g} s"
            return "offline", f"no heartbeat for {MISSES} intervals of {interval:g} s"
        if silence > suspect:
            return "suspect", f"no heartbeat for more than {suspect:g} s"
        return None

    def _due(self, life: Life) -> float:
        """Seconds of silence after which its state is another."""
        if life.state == "unknown":
            interval = life.interval or self.interval
            return interval + self.grace_of(interval)
        suspect, offline = self._patience(life)
        return offline if life.state == "suspect" else suspect

    def _patience(self, life: Life) -> tuple[float, float]:
        """Seconds of silence after which a hive is suspect, and offline."""
        interval = life.interval or self.interval
        grace = self.grace_of(interval)
        if life.is_remote:
            return interval + grace / 2, interval + grace
        return interval + grace, MISSES * interval + grace

    def counts(self) -> Counter[State]:
        return Counter(life.state for life in self._lives.values())
