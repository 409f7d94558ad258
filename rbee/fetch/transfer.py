"""A transfer from a source into a part, with its retries."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from rbee.errors import BadInput
from rbee.fetch.errors import Again, Anew, NoRoom, NotAModel, Unavailable
from rbee.fetch.part import Part
from rbee.fetch.source import Answer, Source
from rbee.modelfile.formats import START, format_of
from rbee.modelfile.head import head_of
from rbee.modelfile.progress import Progress
from rbee.modelfile.reader import HEADER_MOST, Cut
from rbee.text import shown_span

EARLY_LOOK = 2**20
"""Bytes after which the head is tried again; after each further try twice as many."""


class Patience(NamedTuple):
    """How often and when a transfer is retried.

    After `tries` retries without progress, which is `progress` bytes, it fails. The wait before a retry
    doubles each time, from `first_wait` to `longest_wait` seconds; by default the waits add up to about
    4 minutes. The file may change `changes` times. A connection with fewer than `progress` bytes in `stall`
    seconds is closed.
    """

    tries: int = 10
    progress: int = 2**20
    first_wait: float = 0.5
    longest_wait: float = 60.0
    changes: int = 5
    stall: float = 600.0


class World(NamedTuple):
    """What a transfer needs from outside: disk space, a place for its progress, and time.

    `room` returns how many bytes may still be written; `wait` takes and `now` returns seconds.
    """

    room: Callable[[], int]
    report: Callable[[Progress], None]
    wait: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic


CHECK_BYTES = 16 * 2**20
"""Bytes after which the disk space is checked again: others write, too, and the size may be unknown."""

RESERVE = 64 * 2**20
"""Bytes of a disk that are left free."""


def room_beside(path: str | os.PathLike[str], reserve: int = RESERVE) -> int:
    """Return how many bytes may be written to the file system of a path, without `reserve`."""
    space = os.statvfs(path)
    return max(space.f_bavail * space.f_frsize - reserve, 0)


class Transfer:
    """Fetches all of a file into its part. `sha256` is what it must have, `name` is for messages."""

    def __init__(
        self, part: Part, source: Source, world: World, *, name: str, sha256: str | None, patience: Patience
    ) -> None:
        self._part = part
        self._source = source
        self._world = world
        self._name = name
        self._sha256 = sha256
        self._patience = patience
        self._total: int | None = None
        self._next_look = 0
        self._changes = 0
        self._was_resumed = False

    def run(self) -> None:
        """Complete the part, and compare its SHA-256. Raises Verdict."""
        self._part.resume(lambda size: self._report(size, "reading what has arrived before"))
        self._was_resumed = self._part.size > 0
        self._await_whole()
        if self._sha256 in (None, self._part.sha256):
            return
        if self._was_resumed:
            # The resumed bytes may be of another version, if the server sends no version.
            self._was_resumed = False
            self._part.restart()
            self._await_whole()
        if self._sha256 != self._part.sha256:
            raise NotAModel(
                f"the SHA-256 of {self._name} is {self._part.sha256}, and not {self._sha256}; it was removed",
                hint="Compare it with the SHA-256 that the file's publisher states.",
            )

    def _await_whole(self) -> None:
        tries, mark = 0, self._part.size
        while True:
            before = self._part.size
            try:
                self._receive()
                return
            except Anew:
                self._changed()
                tries, mark = 0, 0
            except Again as trouble:
                if self._part.size - mark >= self._patience.progress:
                    tries, mark = 0, self._part.size
                tries += 1
                if tries > self._patience.tries:
                    raise Unavailable(
                        f"{self._name} cannot be fetched: {trouble.reason}, {tries} times without progress",
                        hint="Add the model again later: what has arrived is kept for 7 days.",
                    ) from trouble
                self._pause(trouble, tries, has_moved=self._part.size > before)

    def _pause(self, trouble: Again, tries: int, *, has_moved: bool) -> None:
        patience = self._patience
        wait = min(patience.first_wait * 2 ** (tries - 1), patience.longest_wait)
        if has_moved:
            wait = patience.first_wait
        wait = max(wait, trouble.after or 0)
        self._report(self._part.size, f"{trouble.reason}; next try in {shown_span(wait)}")
        self._world.wait(wait)

    def _changed(self) -> None:
        self._part.restart()
        self._next_look = 0
        self._changes += 1
        if self._changes > self._patience.changes:
            raise Unavailable(f"{self._name} has changed {self._changes} times while it was fetched")

    # One connection

    def _receive(self) -> None:
        part = self._part
        if part.size and part.version is None and self._sha256 is None:
            # Neither a version nor a SHA-256 would show that the rest is of another file.
            part.restart()
        self._next_look = 0
        with self._source.open(part.size, part.version) as answer:
            blocks = answer.blocks
            if answer.begin != part.size:
                blocks = self._checked_before(answer)
                part.restart()
            self._total = answer.total
            self._check_room(0 if answer.total is None else answer.total - part.size)
            part.begin(answer.version)
            next_check = part.size + CHECK_BYTES
            for block in self._watched(blocks):
                part.write(block)
                if part.size >= next_check:
                    next_check = part.size + CHECK_BYTES
                    self._check_room(1)
                self._report(part.size)
                self._look()
        if answer.total is not None and part.size < answer.total:
            raise Again("the connection was lost")
        part.sync()

    def _checked_before(self, answer: Answer) -> Iterable[bytes]:
        """Check that an answer from the start begins as a model, before it replaces what has arrived.

        Otherwise an error page with status 200 would replace it.
        """
        start, blocks = b"", iter(answer.blocks)
        for block in blocks:
            start += block
            if len(start) >= START:
                break
        try:
            format_of(start[:START], self._name)
        except Cut as error:
            raise Again("the connection was lost") from error
        except BadInput as error:
            raise Again(error.message) from error
        return _joined(start, blocks)

    def _watched(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the blocks; raise Again if they come too slowly."""
        began, size, patience = self._world.now(), 0, self._patience
        for block in blocks:
            yield block
            size += len(block)
            now = self._world.now()
            if size >= patience.progress:
                began, size = now, 0
            elif now - began > patience.stall:
                raise Again(f"fewer than {patience.progress} bytes arrived in {shown_span(patience.stall)}")

    def _check_room(self, needed: int) -> None:
        room = self._world.room()
        if needed > room:
            raise NoRoom(
                f"no space on the hive's disk for {self._name}: it needs {needed} more bytes, and there are "
                f"{room} available",
                hint="Free space on the disk of the hive's store, or remove models from it.",
            )

    def _look(self) -> None:
        """Read the head as soon as it has arrived, to end the transfer early if the file is not a model."""
        size = self._part.size
        if size < self._next_look or size < START or self._next_look > HEADER_MOST:
            return
        self._next_look = max(2 * self._next_look, EARLY_LOOK)
        try:
            with self._part.reader() as file:
                head_of(file, self._name, self._total)
        except Cut:
            return
        except BadInput as error:
            raise NotAModel(error.message, hint=error.hint) from error
        self._next_look = HEADER_MOST + 1

    def _report(self, size: int, note: str = "") -> None:
        self._world.report(Progress(size, self._total, note))


def _joined(start: bytes, blocks: Iterable[bytes]) -> Iterator[bytes]:
    yield start
    yield from blocks
