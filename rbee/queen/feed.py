"""The feed: what is narrated, numbered and kept for a while, for whoever watches (rbeectl monitor).

The journal has it too, and for good, but not for the group rbee, which may not read the journal.

Bounds: KEPT events and KEPT_SIZE bytes of them; WATCHERS readers at once. A reader has no buffer
of its own, only a place in what is kept: who is too slow for it is told of a gap, and who takes
nothing for rbee.server.connection.SEND_TIMEOUT is dropped.
"""

from __future__ import annotations

import asyncio
import dataclasses
import errno
import json
import logging
import os
import secrets
import threading
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from rbee.errors import TEXT_LIMIT, BadInput
from rbee.narration import (
    EVENTS,
    FEED_IN_FILE,
    FEED_IN_RAM,
    INFO,
    Event,
    Narrator,
    line_of,
    now_rfc3339,
)
from rbee.server.limits import Bound, Limits
from rbee.server.peer import Peer
from rbee.server.streams import Growth, Reading
from rbee.wire import sse
from rbee.wire.codec import decode, encode
from rbee.wire.events import FeedEvent, FeedEvents, Gap, Line
from rbee.wire.rows import read_row
from rbee.wire.types import is_same_name

log = logging.getLogger("rbee")

KEPT = 1000
"""Events that are kept; the file has up to twice as many before the older half is left behind."""

KEPT_SIZE = 1024 * 1024
"""Bytes of the events that are kept, in JSON; the file has up to twice as many."""

REPEATS = 256
"""Lines of hives that are told apart from a repetition: a beat whose answer was late is sent anew."""

MEND_AFTER = 60.0
"""Seconds after which a file that could not be written is tried again, at the next event."""

WATCHERS = Bound(total=128, kept=16, a_user=96, a_process=32)

_FIELDS = {field.name for field in dataclasses.fields(FeedEvent)}
_PRIORITIES = {event.name: event.priority for event in EVENTS}


class FeedFile:
    """The events' lines in a file that outlives the process; without a path it keeps nothing.

    It is on tmpfs and outlives no reboot, so nothing is synced: what write(2) has taken is there
    even if the writer is killed right after it, and of what it took in part the beginning.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._fd: int | None = None
        self._size = 0
        self._count = 0

    @property
    def is_open(self) -> bool:
        return self._fd is not None

    @property
    def is_long(self) -> bool:
        return self._count >= 2 * KEPT or self._size >= 2 * KEPT_SIZE

    def load(self) -> list[bytes]:
        """Its lines, to be gone on with; a last one without an end is cut off.

        Raises OSError, and ValueError where it is longer than a queen leaves it.
        """
        if self.path is None:
            return []
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "rb", closefd=False) as file:
                content = file.read(4 * KEPT_SIZE)
            if len(content) == 4 * KEPT_SIZE:
                raise ValueError("it is too long")
            *lines, unfinished = content.split(b"\n")
            self._size = len(content) - len(unfinished)
            os.ftruncate(fd, self._size)
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._count = fd, len(lines)
        return lines

    def append(self, line: bytes) -> None:
        """Raises OSError, and the file is then as it was before."""
        assert self._fd is not None
        try:
            _write(self._fd, line + b"\n")
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(line) + 1
        self._count += 1

    def rewrite(self, lines: Iterable[bytes]) -> None:
        """Begin a file anew with these lines, aside, and put it in the old one's place. Raises OSError."""
        assert self.path is not None
        aside = self.path.with_suffix(".new")
        content = b"".join(line + b"\n" for line in lines)
        fd = os.open(aside, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            _write(fd, content)
            os.replace(aside, self.path)
        except BaseException:
            os.close(fd)
            raise
        self.close()
        self._fd, self._size, self._count = fd, len(content), content.count(b"\n")

    def drop(self) -> None:
        """Leave nothing behind that somebody could go on with: the numbers after it are given away."""
        if self.path is None:
            return
        with suppress(OSError):
            if self._fd is not None:
                os.ftruncate(self._fd, 0)
        for path in (self.path, self.path.with_suffix(".new")):
            with suppress(OSError):
                path.unlink()
        self.close()

    def close(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def _write(fd: int, content: bytes) -> None:
    """All in one write(2), which is taken in part only where there is no room for the rest."""
    if os.write(fd, content) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Feed(Narrator):
    """Any thread may narrate; all else is done in the event loop's, in which it is made."""

    def __init__(
        self,
        file: FeedFile,
        journal: Narrator,
        daemons: Collection[int] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`journal` is told, as the feed itself is, where the file cannot be written; `daemons` are users for
        whom there is a place when others took all."""
        self._file = file
        self._journal = journal
        self.limits = Limits("streams of events are being read", WATCHERS, daemons)
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._growth = Growth()
        self._is_closed = False
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._epoch = secrets.token_hex(8)
        self._number = 0
        """Of the last event."""
        self._heard: dict[tuple[str, Line], None] = {}
        self._mend_at: float | None = None
        """Where the file cannot be written: when it is tried again."""
        self._load()

    # What is told

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        line = line_of(event, text)
        if threading.get_ident() == self._thread:
            self._tell(line, event.priority, fields)
        else:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._tell, line, event.priority, fields)

    def relay(self, hive_id: str, line: Line, job_id: str | None) -> None:
        """A hive's own line, as a beat brought it, perhaps not for the first time."""
        if (hive_id, line) in self._heard:
            return
        self._heard[hive_id, line] = None
        if len(self._heard) > REPEATS:
            del self._heard[next(iter(self._heard))]
        about = {"hive": hive_id} | ({"job_id": job_id} if job_id else {})
        told = replace(line, speaker="bee hive", at=now_rfc3339())
        self._tell(told, _PRIORITIES.get(line.event, INFO), about)

    def close(self) -> None:
        """End every stream once its reader has been told all up to now; what comes later is kept."""
        self._is_closed = True
        self._growth.announce()

    async def end(self) -> None:
        """Let go of the file, after what other threads have narrated."""
        await asyncio.sleep(0)
        self._file.close()

    # What is read

    @property
    def id(self) -> str:
        """Where the feed stands: the last event's id."""
        return self._id(self._number)

    def last(self, limit: int, hive: str | None = None) -> FeedEvents:
        """The last events, of one hive or of all, oldest first."""
        found: list[FeedEvent] = []
        for line in reversed(self._lines):
            if len(found) >= limit:
                break
            event = FeedEvent(**json.loads(line))
            if hive is None or is_same_name(hive, event.hive):
                found.append(event)
        return FeedEvents(self.id, tuple(reversed(found)))

    def stream(self, reader: Peer, *, after: str | None = None, since_ms: int | None = None) -> Reading:
        """Server-sent events as QueenRoutes.FEED has them; TooMany beyond WATCHERS."""
        self.limits.take(reader)
        number, first = self._begin(after, since_ms)
        return Reading(self._follow(number), first, lambda: self.limits.give_back(reader))

    def _begin(self, after: str | None, since_ms: int | None) -> tuple[int, bytes]:
        """The number after which a reader goes on, and what he is told first."""
        if after is None:
            number = self._number if since_ms is None else self._oldest + _count_before(self._lines, since_ms)
        else:
            epoch, _, given = after.partition("-")
            number = int(given)
            if epoch != self._epoch or not self._oldest <= number <= self._number:
                return self._oldest, self._gap(after)
        # A block without data; by the standard it tells the last event's id all the same.
        return number, sse.place(self._id(number))

    def _follow(self, number: int) -> AsyncGenerator[bytes, None]:
        """The events after a number, as they come, until the feed is closed."""

        def unread() -> Iterator[bytes]:
            nonlocal number
            while number < self._number:
                if number < self._oldest:
                    gap, number = self._gap(self._id(number)), self._oldest
                    yield gap
                    continue
                line = self._lines[number - self._oldest]
                number += 1
                yield sse.event(self._id(number), "narrated", line)

        return self._growth.follow(unread, lambda: self._is_closed)

    @property
    def _oldest(self) -> int:
        """The number after which all is kept."""
        return self._number - len(self._lines)

    def _id(self, number: int) -> str:
        return f"{self._epoch}-{number}"

    def _gap(self, after: str) -> bytes:
        gap = Gap(after, self._id(self._oldest + 1))
        return sse.event(self._id(self._oldest), "gap", json.dumps(encode(gap)).encode())

    # How it is kept

    def _tell(self, line: Line, priority: int, fields: Mapping[str, str]) -> None:
        uid = fields.get("actor_uid", "")
        event = FeedEvent(
            id=self._id(self._number + 1),
            at=line.at,
            event=line.event,
            speaker=line.speaker,
            priority=priority,
            # A name of a file may hold what is no Unicode, and who reads would refuse.
            text=line.text.encode(errors="backslashreplace").decode()[:TEXT_LIMIT],
            hive=fields.get("hive"),
            job_id=fields.get("job_id"),
            actor_uid=int(uid) if uid.isdecimal() else None,
        )
        self._number += 1
        self._keep(_line_of(event))
        self._store()
        self._growth.announce()

    def _keep(self, line: bytes) -> None:
        self._lines.append(line)
        self._size += len(line)
        while len(self._lines) > KEPT or self._size > KEPT_SIZE:
            self._size -= len(self._lines.popleft())

    def _store(self) -> None:
        """Put the last line into the file: before any reader has it, so that the next queen has it, too."""
        try:
            if self._file.is_open:
                self._file.append(self._lines[-1])
                if self._file.is_long:
                    self._file.rewrite(self._lines)
            elif self._mend_at is not None and self._clock() >= self._mend_at:
                self._file.rewrite(self._lines)
                self._mend_at = None
                self._say(FEED_IN_FILE, f"the events are kept in {self._file.path} again")
        except OSError as error:
            self._lose(error)

    def _load(self) -> None:
        try:
            try:
                self._take_up(self._file.load())
            except (ValueError, TypeError, KeyError, BadInput) as error:
                # Nobody but a queen writes it. Who has read the one before is told of a gap.
                log.warning("%s is begun anew, as it is not as a queen writes it: %s", self._file.path, error)
                self._file.rewrite(())
        except OSError as error:
            self._lose(error)

    def _take_up(self, lines: list[bytes]) -> None:
        """Go on after the last of these lines; ValueError where they do not follow each other."""
        lines = lines[-KEPT:]
        events = [json.loads(line) for line in lines]
        ids = [event["id"] for event in events]
        if not ids:
            return
        decode(FeedEvent, events[-1])
        epoch, _, last = ids[-1].partition("-")
        if ids != [f"{epoch}-{int(last) - left}" for left in reversed(range(len(ids)))]:
            raise ValueError("its events do not follow each other")
        self._epoch, self._number = epoch, int(last)
        for line, event in zip(lines, events, strict=True):
            # Of another version, which the restart after an upgrade finds here.
            is_ours = event.keys() | {"problem"} == _FIELDS
            self._keep(line if is_ours else _line_of(read_row(FeedEvent, event)))

    def _lose(self, error: OSError) -> None:
        """Go on without the file, and say so once."""
        is_news = self._mend_at is None
        self._file.drop()
        self._mend_at = self._clock() + MEND_AFTER
        if is_news:
            self._say(
                FEED_IN_RAM,
                f"the events are kept in RAM only, as {self._file.path} cannot be written: {error.strerror}",
            )

    def _say(self, event: Event, text: str) -> None:
        self._journal.narrate(event, text)
        self.narrate(event, text)


def _count_before(lines: Iterable[bytes], since_ms: int) -> int:
    """How many of the events are older than a moment, in milliseconds since the epoch."""
    count = 0
    for line in lines:
        at = datetime.fromisoformat(json.loads(line)["at"])
        if round(at.timestamp() * 1000) >= since_ms:
            break
        count += 1
    return count


def _line_of(event: FeedEvent) -> bytes:
    """As the file has it. Without a problem the field is left out: 0.4.0, who may come back, knows none."""
    told = encode(event)
    if event.problem is None:
        del told["problem"]
    return json.dumps(told).encode()
