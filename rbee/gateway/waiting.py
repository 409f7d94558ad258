"""A request that waits for a worker: what its client and the journal get meanwhile."""

from __future__ import annotations

import asyncio
from types import TracebackType

from rbee.errors import RbeeError
from rbee.gateway.lease import describe_wait
from rbee.gateway.reply import Reply
from rbee.narration import REQUEST_HELD, REQUEST_REFUSED, REQUEST_WOKE, Narrator
from rbee.text import shown_span
from rbee.wire.leases import Granted, Wait

HEAD_AFTER = 2.0
"""Seconds after which the client of a stream gets the head of its answer, and comments follow."""

COMMENT_INTERVAL = 3.0
"""Seconds between two comments."""


class Waiting:
    """A context while a request waits. `may_begin`: its client wants a stream, whose head may come early."""

    def __init__(self, reply: Reply, narrator: Narrator, model: str, *, may_begin: bool) -> None:
        self._reply = reply
        self._narrator = narrator
        self._model = model
        self._may_begin = may_begin
        self._began = asyncio.get_running_loop().time()
        self._last: Wait | None = None
        self._commenting: asyncio.Task[None] | None = None

    @property
    def seconds(self) -> float:
        """Return the seconds since the wait began."""
        return asyncio.get_running_loop().time() - self._began

    async def __aenter__(self) -> Waiting:
        if self._may_begin:
            self._commenting = asyncio.get_running_loop().create_task(self._comment())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._commenting is not None:
            self._commenting.cancel()
            # Before the answer continues: two tasks must not send at once.
            await asyncio.gather(self._commenting, return_exceptions=True)

    def note(self, wait: Wait) -> None:
        """Note why the request waits."""
        if wait.job_id is not None and (self._last is None or self._last.job_id != wait.job_id):
            text = f"a request for {self._model} waits: {wait.text}"
            self._narrator.narrate(REQUEST_HELD, text, job_id=wait.job_id)
        self._last = wait

    def granted(self, granted: Granted) -> None:
        """Narrate that the wait for a cold start is over."""
        if granted.was_cold:
            text = f"a request for {self._model} was held for {shown_span(self.seconds)}"
            fields = {} if granted.job_id is None else {"job_id": granted.job_id}
            self._narrator.narrate(REQUEST_WOKE, f"{text}, until {granted.worker} was ready", **fields)

    def refused(self, error: RbeeError) -> None:
        """Narrate a refusal after a wait; one without a wait concerns its client only."""
        if self._last is not None:
            text = (
                f"a request for {self._model} was refused after {shown_span(self.seconds)}: {error.message}"
            )
            fields = {} if self._last.job_id is None else {"job_id": self._last.job_id}
            self._narrator.narrate(REQUEST_REFUSED, text, **fields)

    async def _comment(self) -> None:
        await asyncio.sleep(HEAD_AFTER)
        await self._reply.begin_events()
        while True:
            await self._reply.comment(self._text())
            await asyncio.sleep(COMMENT_INTERVAL)

    def _text(self) -> str:
        if self._last is None:
            return f"waiting for {self._model}"
        return describe_wait(self._last)
