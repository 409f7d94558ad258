"""The story of a cold start beside a request: the queen's events have all of it, the gateway only sums it up.

It is optional: if the queen's events cannot be read, the request is answered without it.
"""

from __future__ import annotations

import os
import re
import select
import threading
from contextlib import closing, suppress

from rbee.client.queen import FeedBlock, FeedStream, QueenClient
from rbee.errors import BadInput, RbeeError
from rbee.narration import WORKER_AWAKE, WORKER_READY, Teller
from rbee.wire.codec import decode
from rbee.wire.events import FeedEvent
from rbee.wire.lines import Line

OPEN_TIMEOUT = 5.0
"""Seconds to wait for the queen's event stream, which wakes the queen, before the request is sent anyway."""

SETTLE_TIMEOUT = 0.5
"""Seconds for the last lines of a story to arrive once the answer has begun."""

_LAST = frozenset({WORKER_AWAKE.name, WORKER_READY.name})
"""The lines after which a story is over: the queen's, and the hive's."""


class Story:
    """Narrates the jobs that start a worker of `model`, from a thread, until end()."""

    def __init__(self, client: QueenClient, teller: Teller, model: str) -> None:
        self._client = client
        self._teller = teller
        self._is_named = re.compile(rf"(?<![\w.-]){re.escape(model)}(?![\w-])", re.IGNORECASE)
        self._jobs: set[str] = set()
        self._told: set[str] = set()
        self._awaited: set[str] = set()
        """The last lines that are still to come; empty before a story has begun."""
        self._telling = threading.Lock()
        self._is_open = threading.Event()
        self._is_settled = threading.Event()
        self._is_over = False
        self._end = os.eventfd(0, os.EFD_CLOEXEC)
        self._thread = threading.Thread(target=self._follow, name="story", daemon=True)

    def begin(self) -> None:
        """Open the event stream; return when it is open, cannot be opened, or OPEN_TIMEOUT has passed."""
        try:
            self._thread.start()
        except RuntimeError:  # this user may have no more threads (RLIMIT_NPROC)
            return
        self._is_open.wait(OPEN_TIMEOUT)

    def settle(self) -> None:
        """Wait until a story that has begun has ended, SETTLE_TIMEOUT at most."""
        with self._telling:
            has_more = bool(self._awaited)
        if has_more:
            self._is_settled.wait(SETTLE_TIMEOUT)

    def end(self) -> None:
        """Narrate nothing more."""
        with self._telling:
            self._is_over = True
        os.eventfd_write(self._end, 1)

    def has_told(self, text: str) -> bool:
        """Has it narrated this line? The gateway repeats the last one."""
        return text in self._told

    def _follow(self) -> None:
        try:
            with suppress(RbeeError, OSError), closing(self._client.within(OPEN_TIMEOUT).watch()) as stream:
                self._is_open.set()
                self._read(stream)
        finally:
            self._is_open.set()
            self._is_settled.set()

    def _read(self, stream: FeedStream) -> None:
        poll = select.poll()
        poll.register(stream, select.POLLIN)
        poll.register(self._end, select.POLLIN)
        while True:
            # Some blocks may have arrived with the head of the response.
            for block in stream.take():
                self._take(block)
            if stream.is_ended or any(number == self._end for number, _ in poll.poll()):
                return
            stream.receive()

    def _take(self, block: FeedBlock) -> None:
        if block.kind != "narrated":
            return
        try:
            event = decode(FeedEvent, block.data)
        except BadInput:
            return
        if not self._is_about_it(event):
            return
        with self._telling:
            if self._is_over:
                return
            if not self._jobs:
                self._awaited = set(_LAST)
            self._jobs.add(event.job_id or "")
            self._awaited.discard(event.event)
            self._told.add(event.text)
            self._teller.relay(Line(event.speaker, event.text, event.event, event.at))
            if not self._awaited:
                self._is_settled.set()

    def _is_about_it(self, event: FeedEvent) -> bool:
        if event.job_id is None or not event.event.startswith("worker-"):
            return False
        return event.job_id in self._jobs or bool(self._is_named.search(event.text))
