"""Watching what the queen narrates, for as long as somebody looks, and waking nobody.

Whether she is awake is systemd's to say, and when that changes its signal tells. Her socket is
spoken to only while she is active and no job is queued that would change it: systemd starts a
queen who is not active for anybody who connects. What is left is the moment between systemd's
answer and the connection: a stop that begins in it may be followed by a start, as it may be for
any client who was there already.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from rbee.client.queen import SILENCE, FeedBlock, FeedStream, QueenClient
from rbee.errors import BadInput, Disconnected, NotRunning, RbeeError, Stopping, TimedOut, Unreachable
from rbee.keeper.queen.state import QueenState, queen_state
from rbee.scope import QUEEN_SOCKET_UNIT, QUEEN_UNIT
from rbee.systemd.bus import Bus
from rbee.wire.codec import Shape, decode
from rbee.wire.events import FeedEvent, Gap
from rbee.wire.routes import QueenRoutes
from rbee.wire.rows import read_row
from rbee.wire.types import is_same_name

LOOK_AGAIN = 3600.0
"""Seconds after which a sleeping queen is looked at though no signal has come."""

SETTLED = 5.0
"""The same for one of whom systemd says that she wakes or stops, or nothing in time: it may be reloading."""

AFTERWARDS = 1.0
"""Seconds after the end of a stream in which systemd must have noticed that its queen went."""


@dataclass(frozen=True, slots=True)
class QueenIs:
    """What the keeper itself says: of a queen who is not awake, or is again, or is and does not answer."""

    state: QueenState | Literal["silent"]
    text: str


Told = FeedEvent | Gap | QueenIs


class Presence:
    """Whether the queen is awake, by systemd's word alone."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._is_news = True
        for unit in (QUEEN_UNIT, QUEEN_SOCKET_UNIT):
            bus.on_unit_changed(unit, self._note)

    def look(self) -> QueenState | None:
        """What she is; None while that is about to change, and where systemd does not say it in time."""
        self._is_news = False
        try:
            state = queen_state(self._bus)
            if state in ("waking", "stopping"):
                return None
            # By a shutdown her socket goes after her, and a restart is a moment of sleep.
            units = (QUEEN_UNIT,) if state == "awake" else (QUEEN_UNIT, QUEEN_SOCKET_UNIT)
            return None if any(self._bus.has_job(unit) for unit in units) else state
        except TimedOut:
            return None

    def has_news(self) -> bool:
        """Has systemd signalled a change since the last look? What has arrived is heard first."""
        # A reply may have brought a signal along, which the descriptor then does not show.
        self._bus.pump()
        return self._is_news

    def fileno(self) -> int:
        return self._bus.fileno()

    def why_failed(self) -> str:
        state = self._bus.state(QUEEN_UNIT)
        return state.status_text or state.end or state.result

    def _note(self) -> None:
        self._is_news = True


class Monitor:
    """`hive`: its events only. At first come the last `lines` events, or those since `since_ms`.

    Beside a queen who is not awake nobody knows of earlier ones: then it begins with what comes.
    `output` is a descriptor of which the reader's end is the monitor's, too (BrokenPipeError).
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
        self._queen = queen
        self._left = left
        self._hive = hive
        self._lines = lines
        self._since_ms = since_ms
        self._output = output
        self._at: str | None = None
        """The last event that is known here."""
        self._began_ms = time.time_ns() // 1_000_000
        self._said: str = "awake"

    def events(self) -> Iterator[Told]:
        """What happens, for ever."""
        while True:
            state = self._presence.look()
            if state == "awake":
                yield from self._follow()
                continue
            if self._at is None and self._since_ms is None:
                # By the wall clock, the only one that two processes and a file share.
                self._since_ms = self._began_ms
            if state is None:
                self._wait(SETTLED)
            else:
                yield from self._say(QueenIs(state, self._waiting_for(state)))
                self._wait(LOOK_AGAIN)

    def _waiting_for(self, state: QueenState) -> str:
        if state == "failed":
            return f"queen has failed ({self._presence.why_failed()}), waiting until she is started again."
        after = {"asleep": "wakes", "absent": "is installed"}.get(state, "is turned on")
        return f"queen is {state}, waiting until she {after}."

    def _say(self, told: QueenIs) -> Iterator[Told]:
        """Once, until there is something else to say."""
        if told.state != self._said:
            self._said = told.state
            yield told

    def _follow(self) -> Iterator[Told]:
        """One stream, to its end; then until systemd knows what became of the queen."""
        trouble: RbeeError | None = None
        try:
            yield from self._read()
        except (Disconnected, Stopping):
            pass  # she was killed, or is being stopped
        except (TimedOut, Unreachable) as error:
            self._left(AFTERWARDS)  # where the time that the person allows is over
            trouble = error
        except NotRunning:
            # Her socket is gone: with her, or she is awake and nobody can speak to her.
            if self._presence.look() == "awake":
                raise
        until = time.monotonic() + AFTERWARDS
        while self._presence.look() == "awake":
            span = until - time.monotonic()
            if span <= 0:
                if trouble is not None:
                    text = f"queen does not answer, retrying: {trouble.message}"
                    yield from self._say(QueenIs("silent", text))
                return
            self._wait(span)

    def _read(self) -> Iterator[Told]:
        if self._at is None and self._since_ms is None:
            yield from self._last()
        with closing(self._queen.watch(after=self._at, since_ms=self._since_ms)) as stream:
            yield from self._say(QueenIs("awake", "queen is awake."))
            silent_at = time.monotonic() + SILENCE
            while True:
                for block in stream.take():
                    self._at = block.id
                    yield from self._told(block)
                if stream.is_ended:
                    return
                span = silent_at - time.monotonic()
                if span <= 0:
                    raise TimedOut(f"she was silent for {SILENCE:g} s")
                if self._wait(span, stream):
                    stream.receive()
                    silent_at = time.monotonic() + SILENCE

    def _last(self) -> Iterator[Told]:
        asked = {"limit": str(self._lines)} | ({"hive": self._hive} if self._hive else {})
        last = self._queen.ask(QueenRoutes.LAST_EVENTS, **asked)
        self._at = last.id
        yield from last.events

    def _told(self, block: FeedBlock) -> Iterator[Told]:
        if block.kind == "gap":
            yield _agreed(Gap, block)
        elif block.kind == "narrated":
            event = read_row(FeedEvent, block.data)
            if self._hive is None or is_same_name(self._hive, event.hive):
                yield event

    def _wait(self, seconds: float, stream: FeedStream | None = None) -> bool:
        """Until systemd has news, the stream something to read, which is returned, or the time is over."""
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
                    raise BrokenPipeError
            self._presence.has_news()
        return False


def _agreed(kind: type[Shape], block: FeedBlock) -> Shape:
    try:
        return decode(kind, block.data)
    except BadInput as error:
        raise RbeeError(
            f"an event of the queen's is not as agreed: {error.message}",
            hint="rbeectl version says whether rbeectl is older than the queen.",
        ) from error
