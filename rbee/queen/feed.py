"""The feed: the narrated lines, numbered and kept for a while, for rbeectl monitor.

The journal keeps them too, for longer, but members of the group rbee may not read the journal.

Limits: what a Backlog keeps; WATCHERS readers at once. A reader has no buffer of its own, only a position
among the kept events: one that is too slow gets a gap event, and one that takes nothing for
rbee.server.connection.SEND_TIMEOUT is disconnected.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import suppress
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
from rbee.queen import backlog
from rbee.queen.backlog import Backlog
from rbee.server.limits import Bound, Limits
from rbee.server.peer import Peer
from rbee.server.streams import Growth, Reading
from rbee.wire import sse
from rbee.wire.codec import decode, encode
from rbee.wire.events import FeedEvent, FeedEvents, Gap
from rbee.wire.lines import Line
from rbee.wire.rows import read_row
from rbee.wire.types import is_same_name

log = logging.getLogger("rbee")

REPEATS = 256
"""Lines of hives that are remembered to drop repeated ones: a beat whose answer was late is sent again."""

RETRY_AFTER = 60.0
"""Seconds after which writing a file that failed is retried, at the next event."""

WATCHERS = Bound(total=1024, kept=16, a_user=96, a_process=32)

_FIELDS = set(FeedEvent._fields)
_PRIORITIES = {event.name: event.priority for event in EVENTS}


class FeedFile:
    """The events' lines in a file that outlives the process; without a path nothing is kept.

    It is on tmpfs, so nothing is synced: what write(2) has taken is there even if the writer is killed
    right after it, and a partial write leaves an unfinished last line.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._fd: int | None = None
        self._size = 0
        self._count = 0

    @property
    def is_open(self) -> bool:
        """Can lines be appended?"""
        return self._fd is not None

    @property
    def is_long(self) -> bool:
        """Does the file have twice what is kept, and is due for rewrite()?"""
        return self._count >= 2 * backlog.KEPT or self._size >= 2 * backlog.KEPT_SIZE

    def load(self) -> list[bytes]:
        """Open the file and return its lines; an unfinished last line is cut off.

        Raises OSError, and ValueError if the file is longer than any that a queen writes.
        """
        if self.path is None:
            return []
        fd = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with open(fd, "rb", closefd=False) as file:
                content = file.read(4 * backlog.KEPT_SIZE)
            if len(content) == 4 * backlog.KEPT_SIZE:
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
        """Append a line. Raises OSError; the file is then as it was before."""
        assert self._fd is not None
        try:
            _write(self._fd, line + b"\n")
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(line) + 1
        self._count += 1

    def rewrite(self, lines: Iterable[bytes]) -> None:
        """Write a new file with these lines and replace the old one with it. Raises OSError."""
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
        """Delete the file: it will miss events, so the next queen must not continue their numbers."""
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
        """Close the file; further lines are not kept."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def _write(fd: int, content: bytes) -> None:
    """Write all in one write(2), which is partial only if there is no room for the rest."""
    if os.write(fd, content) != len(content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Feed(Narrator):
    """The kept events and their readers. narrate() is for any thread, all else for the event loop's."""

    def __init__(
        self,
        file: FeedFile,
        journal: Narrator,
        daemons: Collection[int] = (),
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`journal` also gets the lines about the feed's file; `daemons` are uids with reserved places."""
        self._file = file
        self._journal = journal
        self.limits = Limits("streams of events are being read", WATCHERS, daemons)
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._growth = Growth()
        self._is_closed = False
        self._kept = Backlog(daemons)
        self._epoch = secrets.token_hex(8)
        self._relayed: dict[tuple[str, Line], None] = {}
        self._retry_at: float | None = None
        """When writing is retried; None if the file is written, or there is none."""
        self._load()

    # Writing

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        line = line_of(event, text)
        if threading.get_ident() == self._thread:
            self._add(line, event.priority, fields)
        else:
            with suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._add, line, event.priority, fields)

    def relay(self, hive_id: str, line: Line, job_id: str | None) -> None:
        """Add a hive's own line from a beat, unless an earlier beat has brought it."""
        if (hive_id, line) in self._relayed:
            return
        self._relayed[hive_id, line] = None
        if len(self._relayed) > REPEATS:
            del self._relayed[next(iter(self._relayed))]
        about = {"hive": hive_id} | ({"job_id": job_id} if job_id else {})
        own = line._replace(speaker="bee hive", at=now_rfc3339())
        self._add(own, _PRIORITIES.get(line.event, INFO), about)

    def close(self) -> None:
        """End every stream after the events so far; later events are still kept."""
        self._is_closed = True
        self._growth.announce()

    async def end(self) -> None:
        """Close the file, after the lines that other threads have narrated."""
        await asyncio.sleep(0)
        self._file.close()

    # Reading

    @property
    def id(self) -> str:
        """The last event's id."""
        return self._id(self._kept.number)

    def last(self, limit: int, hive: str | None = None) -> FeedEvents:
        """Return the last `limit` events, of one hive or of all, oldest first."""
        events: list[FeedEvent] = []
        for line in reversed(self._kept):
            if len(events) >= limit:
                break
            event = FeedEvent(**json.loads(line))
            if hive is None or is_same_name(hive, event.hive):
                events.append(event)
        return FeedEvents(self.id, tuple(reversed(events)))

    def stream(self, reader: Peer, *, after: str | None = None, since_ms: int | None = None) -> Reading:
        """Return the server-sent events of QueenRoutes.FEED for one reader; TooMany beyond WATCHERS.

        They begin after the event id `after`, or at `since_ms` (milliseconds since the epoch), or now.
        """
        self.limits.take(reader)
        number, first = self._begin(after, since_ms)
        return Reading(
            self._growth,
            self._unread_after(number),
            lambda: self._is_closed,
            first=first,
            release=lambda: self.limits.give_back(reader),
        )

    def _begin(self, after: str | None, since_ms: int | None) -> tuple[int, bytes]:
        """Return the number after which a reader starts, and the first block for it."""
        kept = self._kept
        if after is None:
            number = kept.number if since_ms is None else kept.before(since_ms)
        else:
            epoch, _, given = after.partition("-")
            number = int(given)
            is_older = number < kept.oldest and kept.after(number) is None
            if epoch != self._epoch or number > kept.number or is_older:
                return kept.oldest, self._gap(after)
        # A block without data sets the reader's last event id all the same (HTML standard, 9.2.6).
        return number, sse.place(self._id(number))

    def _unread_after(self, number: int) -> Callable[[], Iterator[bytes]]:
        """Return a function that yields what one reader has not read yet, beginning after event `number`."""

        def unread() -> Iterator[bytes]:
            nonlocal number
            while number < self._kept.number:
                following = self._kept.after(number)
                if following is None:  # the rest of what is older is not kept
                    gap, number = self._gap(self._id(number)), self._kept.oldest
                    yield gap
                    continue
                number, line = following
                yield sse.event(self._id(number), "narrated", line)

        return unread

    def _id(self, number: int) -> str:
        return f"{self._epoch}-{number}"

    def _gap(self, after: str) -> bytes:
        gap = Gap(after, self._id(self._kept.oldest + 1))
        return sse.event(self._id(self._kept.oldest), "gap", json.dumps(encode(gap)).encode())

    # Keeping

    def _add(self, line: Line, priority: int, fields: Mapping[str, str]) -> None:
        uid = fields.get("actor_uid", "")
        event = FeedEvent(
            id=self._id(self._kept.number + 1),
            at=line.at,
            event=line.event,
            speaker=line.speaker,
            priority=priority,
            # A file name may have lone surrogates, which the reader's decoder would refuse.
            text=line.text.encode(errors="backslashreplace").decode()[:TEXT_LIMIT],
            hive=fields.get("hive"),
            job_id=fields.get("job_id"),
            actor_uid=int(uid) if uid.isdecimal() else None,
        )
        line_in_json = _line_of(event)
        self._kept.append(line_in_json)
        self._store(line_in_json)
        self._growth.announce()

    def _store(self, line: bytes) -> None:
        """Append the last line to the file before any reader gets it, so that the next queen has it too."""
        try:
            if self._file.is_open:
                self._file.append(line)
                if self._file.is_long:
                    self._file.rewrite(self._kept)
            elif self._retry_at is not None and self._clock() >= self._retry_at:
                self._file.rewrite(self._kept)
                self._retry_at = None
                self._narrate_own(FEED_IN_FILE, f"the events are kept in {self._file.path} again")
        except OSError as error:
            self._lose(error)

    def _load(self) -> None:
        try:
            try:
                self._take_up(self._file.load())
            except (ValueError, TypeError, KeyError, BadInput) as error:
                # Readers of the old file get a gap event.
                log.warning("%s is not a queen's event file and is replaced: %s", self._file.path, error)
                self._file.rewrite(())
        except OSError as error:
            self._lose(error)

    def _take_up(self, lines: list[bytes]) -> None:
        """Continue after these lines; ValueError if others than those that a Backlog drops are missing."""
        events = [json.loads(line) for line in lines]
        if not events:
            return
        decode(FeedEvent, events[-1])
        ids = [event["id"].rpartition("-") for event in events]
        numbers = [int(number) for _, _, number in ids]
        if len({epoch for epoch, _, _ in ids}) > 1 or not self._kept.could_keep(numbers, events):
            raise ValueError("its events are not numbered consecutively")
        self._epoch = ids[-1][0]
        # Otherwise another version has written it, before an upgrade.
        ours = [event.keys() | {"problem"} == _FIELDS for event in events]
        self._kept.take_up(
            numbers,
            (
                line if is_ours else _line_of(read_row(FeedEvent, event))
                for is_ours, line, event in zip(ours, lines, events, strict=True)
            ),
        )

    def _lose(self, error: OSError) -> None:
        """Continue without the file, and narrate that once."""
        is_first = self._retry_at is None
        self._file.drop()
        self._retry_at = self._clock() + RETRY_AFTER
        if is_first:
            self._narrate_own(
                FEED_IN_RAM,
                f"the events are kept in RAM only, as {self._file.path} cannot be written: {error.strerror}",
            )

    def _narrate_own(self, event: Event, text: str) -> None:
        self._journal.narrate(event, text)
        self.narrate(event, text)


def _line_of(event: FeedEvent) -> bytes:
    """Return an event's line. `problem` is left out if None: after a downgrade 0.4.0 could not read it."""
    fields = encode(event)
    if event.problem is None:
        del fields["problem"]
    return json.dumps(fields).encode()
