"""Whether a hive's workers and fetches may have changed since the queen asked for them, and how it is asked.

In RAM only.
"""

from __future__ import annotations

import asyncio

POLLS_AT_ONCE = 4
"""Requests to one hive at once that wait for changes of fetches: a remote hive answers only few at once."""


class Workload:
    """The fingerprint of its work in a hive's beats: it differs once a worker or a fetch has changed.

    `heard` is that of the last beat; None if that had none.
    """

    def __init__(self) -> None:
        self.heard: str | None = None
        self._known: str | None = None
        self.lock = asyncio.Lock()
        """Held while the hive is asked for its workers."""
        self.is_due = False
        """Is a request for its workers about to begin?"""
        self.failure: str | None = None
        """Why the last request for its workers failed: a failure that lasts is logged once."""
        self.polls = asyncio.Semaphore(POLLS_AT_ONCE)

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
