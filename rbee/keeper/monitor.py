"""Following what the queen narrates, without waking it.

systemd reports whether the queen is awake, and signals when that changes. The queen's socket is used
only while its unit is active and no job is queued that would change that, as systemd starts a queen
that is not active for any client that connects. One race is left: a stop that begins between systemd's
answer and the connection may be followed by a start, as for any other client.
"""

from __future__ import annotations

import errno
import os
import select
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Literal, NamedTuple

from rbee.client.queen import SILENCE, FeedBlock, FeedStream, QueenClient
from rbee.errors import BadInput, Disconnected, NotRunning, RbeeError, Stopping, TimedOut, Unreachable
from rbee.keeper.output.streams import OutputFailed
from rbee.keeper.queen.state import QueenState, queen_state
from rbee.scope import QUEEN_SOCKET_UNIT, QUEEN_UNIT, Scope
from rbee.systemd.bus import Bus
from rbee.wire.codec import Shape, decode
from rbee.wire.events import FeedEvent, Gap
from rbee.wire.routes import QueenRoutes
from rbee.wire.rows import read_row
from rbee.wire.types import is_same_name

LOOK_AGAIN = 3600.0
"""Seconds after which the state of a sleeping queen is read again, though no signal has come."""

SETTLED = 5.0
"""The same while the queen wakes or stops, or if systemd does not answer in time: it may be reloading."""

AFTERWARDS = 1.0
"""Seconds after the end of a stream within which systemd reports that the queen has ended."""


class QueenIs(NamedTuple):
    """What the keeper itself reports: the queen is not awake, is awake again, or does not answer."""

    state: QueenState | Literal["silent"]
    text: str


Event = FeedEvent | Gap | QueenIs


class Presence:
    """Whether the queen is awake, as systemd reports it."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._has_changed = True
        for unit in (QUEEN_UNIT, QUEEN_SOCKET_UNIT):
            bus.on_unit_changed(unit, self._note)

    def look(self) -> QueenState | None:
        """The queen's state; None while it is about to change, or if systemd does not answer in time."""
        self._has_changed = False
        try:
            state = queen_state(self._bus)
            if state in ("waking", "stopping"):
                return None
            # In a shutdown the socket stops after the queen; in a restart the queen is asleep for a moment.
            units = (QUEEN_UNIT,) if state == "awake" else (QUEEN_UNIT, QUEEN_SOCKET_UNIT)
            return None if any(self._bus.has_job(unit) for unit in units) else state
        except TimedOut:
            return None

    def has_news(self) -> bool:
        """Has systemd signalled a change since the last look()? Reads the signals that have arrived."""
        # A reply may have brought a signal along, which the descriptor then does not show.
        self._bus.pump()
        return self._has_changed

    def fileno(self) -> int:
        """The bus connection's descriptor, for poll(2)."""
        return self._bus.fileno()

    def why_failed(self) -> str:
        """Why the queen failed: its status line, its exit, or systemd's result."""
        state = self._bus.state(QUEEN_UNIT)
        return state.status_text or state.end or state.result

    def _note(self) -> None:
        self._has_changed = True


class Monitor:
    """The events of `hive`, or of all: first the last `lines`, or those since `since_ms` (since 1970).

    While the queen is not awake earlier events are unknown, and it begins with the next one. If the reader
    of the descriptor `output` goes away, OutputFailed is raised.
    """

    def __init__(
        self,
        bus: Bus,
        queen: QueenClient,
        *,
        left: Callable[[float], float],
        hive: str | None = None,
        lines: int = 10,
        since_ms: int | None = None,
        output: int | None = None,
    ) -> None:
        self._presence = Presence(bus)
        self._scope = bus.scope
        self._queen = queen
        self._left = left
        self._hive = hive
        self._lines = lines
        self._since_ms = since_ms
        self._output = output
        self._at: str | None = None
        """The id of the last event that was received."""
        self._began_ms = time.time_ns() // 1_000_000
        self._reported: str = "awake"

    def events(self) -> Iterator[Event]:
        """The events as they happen, without end."""
        while True:
            state = self._presence.look()
            if state == "awake":
                yield from self._follow()
                continue
            if self._at is None and self._since_ms is None:
                # By the wall clock, the only one that both processes and the file share.
                self._since_ms = self._began_ms
            if state is None:
                self._wait(SETTLED)
            else:
                yield from self._report(QueenIs(state, self._waiting_for(state)))
                self._wait(LOOK_AGAIN)

    def _waiting_for(self, state: QueenState) -> str:
        if state == "failed":
            return f"queen has failed ({self._presence.why_failed()}), waiting until she is started again."
        after = {"asleep": "wakes", "absent": "is installed"}.get(state, "is turned on")
        return f"queen is {state}, waiting until she {after}."

    def _report(self, queen: QueenIs) -> Iterator[Event]:
        """Report a state once, until another one is reported."""
        if queen.state != self._reported:
            self._reported = queen.state
            yield queen

    def _follow(self) -> Iterator[Event]:
        """Yield one stream to its end; then wait until systemd reports what became of the queen."""
        trouble: RbeeError | None = None
        try:
            yield from self._read()
        except (Disconnected, Stopping):
            pass  # the queen was killed, or is being stopped
        except (TimedOut, Unreachable) as error:
            self._left(AFTERWARDS)  # raises if --timeout is over
            trouble = error
        except NotRunning:
            # The socket is gone: with the queen, or although it is awake, which is an error.
            if self._presence.look() == "awake":
                raise
        until = time.monotonic() + AFTERWARDS
        while self._presence.look() == "awake":
            span = until - time.monotonic()
            if span <= 0:
                if trouble is not None:
                    text = f"queen does not answer, retrying: {trouble.message}"
                    yield from self._report(QueenIs("silent", text))
                return
            self._wait(span)

    def _read(self) -> Iterator[Event]:
        if self._at is None and self._since_ms is None:
            yield from self._last()
        with closing(self._queen.watch(after=self._at, since_ms=self._since_ms)) as stream:
            yield from self._report(QueenIs("awake", "queen is awake."))
            silent_at = time.monotonic() + SILENCE
            while True:
                for block in stream.take():
                    self._at = block.id
                    yield from self._events_of(block)
                if stream.is_ended:
                    return
                span = silent_at - time.monotonic()
                if span <= 0:
                    raise TimedOut(f"it was silent for {SILENCE:g} s")
                if self._wait(span, stream):
                    stream.receive()
                    silent_at = time.monotonic() + SILENCE

    def _last(self) -> Iterator[Event]:
        asked = {"limit": str(self._lines)} | ({"hive": self._hive} if self._hive else {})
        last = self._queen.ask(QueenRoutes.LAST_EVENTS, **asked)
        self._at = last.id
        yield from last.events

    def _events_of(self, block: FeedBlock) -> Iterator[Event]:
        if block.kind == "gap":
            yield _agreed(Gap, block, self._scope)
        elif block.kind == "narrated":
            event = read_row(FeedEvent, block.data)
            if self._hive is None or is_same_name(self._hive, event.hive):
                yield event

    def _wait(self, seconds: float, stream: FeedStream | None = None) -> bool:
        """Wait for a change of the queen's state or data on the stream, at most `seconds`; True for data."""
        deadline = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self._presence, select.POLLIN)
        if stream is not None:
            poll.register(stream, select.POLLIN)
        if self._output is not None:
            poll.register(self._output, 0)  # hangups and errors come unasked
        while stream is not None or not self._presence.has_news():
            span = self._left(deadline - time.monotonic())
            if span <= 0:
                return False
            for fd, event in poll.poll(span * 1000):
                if stream is not None and fd == stream.fileno():
                    return True
                if fd == self._output and event & (select.POLLERR | select.POLLHUP | select.POLLNVAL):
                    raise OutputFailed(errno.EPIPE, os.strerror(errno.EPIPE))
            self._presence.has_news()
        return False


def _agreed(kind: type[Shape], block: FeedBlock, scope: Scope) -> Shape:
    try:
        return decode(kind, block.data)
    except BadInput as error:
        raise RbeeError(
            f"an event from the queen is not valid: {error.message}",
            hint=f"{scope.rbeectl('version')} says whether rbeectl is older than the queen.",
        ) from error
