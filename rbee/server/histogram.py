"""A histogram that is counted in RAM, for metrics that prometheus_client writes out."""

from __future__ import annotations

from bisect import bisect_left


class Histogram:
    """How many values were at most each of `bounds`, and the sum of all."""

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def buckets(self) -> list[tuple[str, float]]:
        """Return them as prometheus_client takes them: cumulative, with '+Inf' at the end."""
        buckets, total = [], 0
        for bound, count in zip((*map(repr, self.bounds), "+Inf"), self.counts, strict=True):
            total += count
            buckets.append((bound, float(total)))
        return buckets
