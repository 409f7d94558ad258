"""What the gateway does now: its requests, its status line, and when it has nothing to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rbee.errors import TooMany

REQUESTS_MAX = 1024
"""Requests that are handled at once; one more is refused with 503."""

STATUS_INTERVAL = 1.0
"""Seconds between two changes of the status line, which a busy gateway would change all the time."""


class Activity:
    """Counts requests. `idle` is called after `idle_after` seconds without one."""

    def __init__(self, *, show: Callable[[str], None], idle: Callable[[], None], idle_after: float) -> None:
        self.in_flight = 0
        self.waiting = 0
        self._show = show
        self._idle = idle
        self._idle_after = idle_after
        self._timer: asyncio.TimerHandle | None = None
        self._showing: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        """Begin to wait for requests."""
        self._timer = asyncio.get_running_loop().call_later(self._idle_after, self._idle)

    def close(self) -> None:
        """Stop the timers."""
        for timer in (self._timer, self._showing):
            if timer is not None:
                timer.cancel()
        self._timer = self._showing = None

    @contextmanager
    def request(self) -> Iterator[None]:
        """A context for a request. Raises TooMany beyond REQUESTS_MAX."""
        if self.in_flight >= REQUESTS_MAX:
            raise TooMany(f"{REQUESTS_MAX} requests are in flight, the limit", hint="Try again.")
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.in_flight += 1
        self._changed()
        try:
            yield
        finally:
            self.in_flight -= 1
            self._changed()
            if not self.in_flight:
                self.begin()

    @contextmanager
    def wait(self) -> Iterator[None]:
        """A context for a request that waits for a worker."""
        self.waiting += 1
        self._changed()
        try:
            yield
        finally:
            self.waiting -= 1
            self._changed()

    def line(self) -> str:
        """Return the status line."""
        waiting = f", {self.waiting} of them waiting for a worker" if self.waiting else ""
        return f"requests: {self.in_flight} in flight{waiting}"

    def _changed(self) -> None:
        if self._showing is None:
            self._showing = asyncio.get_running_loop().call_later(STATUS_INTERVAL, self._show_now)

    def _show_now(self) -> None:
        self._showing = None
        self._show(self.line())
