"""A transfer: from a source into a part, through whatever happens on the way."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

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
"""Bytes after which the head is read for the first time; then after twice as many, and so on."""


@dataclass(frozen=True)
class Patience:
    """How often and when a transfer is tried again.

    `tries` are those without progress, which is `progress` bytes; between them it waits for twice as long
    each time, from `first_wait` to `longest_wait` seconds, after about 5 minutes in all it gives up. A source
    may change `changes` times. One that sends less than `progress` bytes in `stall` seconds is cut.
    """

    tries: int = 10
    progress: int = 2**20
    first_wait: float = 0.5
    longest_wait: float = 60.0
    changes: int = 5
    stall: float = 600.0


@dataclass(frozen=True)
class World:
    """What a transfer needs of the world: how much room there is, where progress goes, and time.

    `room` returns the bytes that may still be written.
    """

    room: Callable[[], int]
    report: Callable[[Progress], None]
    wait: Callable[[float], None] = time.sleep
    now: Callable[[], float] = time.monotonic


CHECK_BYTES = 16 * 2**20
"""Bytes after which the room on the disk is checked again: others write, too, and the size may be unknown."""

RESERVE = 64 * 2**20
"""Bytes of a disk that are left free."""


def room_beside(path: str | os.PathLike[str], reserve: int = RESERVE) -> int:
    """Return the bytes that may be written to the file system of a path."""
    space = os.statvfs(path)
    return max(space.f_bavail * space.f_frsize - reserve, 0)


class Transfer:
    """Fetches all of a file into its part. `sha256` is what it must be, `name` how messages call it."""

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
        """Have the part become whole, and right; raises Verdict."""
        self._part.resume(lambda size: self._report(size, "reading what has arrived before"))
        self._was_resumed = self._part.size > 0
        self._await_whole()
        if self._sha256 in (None, self._part.sha256):
            return
        if self._was_resumed:
            # What was there before may be of another version, if the server names none.
            self._was_resumed = False
            self._part.restart()
            self._await_whole()
        if self._sha256 != self._part.sha256:
            raise NotAModel(
                f"the SHA-256 of {self._name} is {self._part.sha256}, and not {self._sha256}: it is removed",
                hint="Compare it with the page that offers the file.",
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
                        hint="Add the model again later: what has arrived is kept for some days.",
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
            # Nothing would show that the rest is of another version.
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
            raise Again("the connection was cut")
        part.sync()

    def _checked_before(self, answer: Answer) -> Iterable[bytes]:
        """Look at the beginning of another answer before what has arrived is dropped for it."""
        start, blocks = b"", iter(answer.blocks)
        for block in blocks:
            start += block
            if len(start) >= START:
                break
        try:
            format_of(start[:START], self._name)
        except Cut as error:
            raise Again("the connection was cut") from error
        except BadInput as error:
            raise Again(error.message) from error
        return _joined(start, blocks)

    def _watched(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        """Pass blocks on for as long as they come fast enough."""
        began, size, patience = self._world.now(), 0, self._patience
        for block in blocks:
            yield block
            size += len(block)
            now = self._world.now()
            if size >= patience.progress:
                began, size = now, 0
            elif now - began > patience.stall:
                raise Again(f"less than {patience.progress} bytes in {shown_span(patience.stall)}")

    def _check_room(self, needed: int) -> None:
        room = self._world.room()
        if needed > room:
            raise NoRoom(
                f"no room for {self._name}: {needed} bytes are to come, and the disk has room for {room}",
                hint="Make room on the disk of the store, or remove models from it.",
            )

    def _look(self) -> None:
        """Read the head as soon as it is there, so that what is no model does not arrive in full."""
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
