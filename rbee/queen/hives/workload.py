"""Whether a hive's workers and fetches may have changed since the queen asked for them. In RAM only."""

from __future__ import annotations


class Workload:
    """The fingerprint of its work in a hive's beats: it differs once a worker or a fetch has changed.

    `heard` is that of the last beat; None if that had none.
    """

    def __init__(self) -> None:
        self.heard: str | None = None
        self._known: str | None = None

    def came_with(self, work: str | None) -> None:
        """Note that the work is known, as it was reported after a beat with this fingerprint."""
        self._known = work

    def forget(self) -> None:
        """Note that it must be asked for again: its process is another, or was away."""
        self._known = ""  # equal to no fingerprint

    @property
    def is_other(self) -> bool:
        """May the work differ from what is known?"""
        return self.heard != self._known
