"""The hive's heartbeats: one at once, then one every interval, over a persistent connection.

They also carry the hive's narrated lines, which reach the keeper through the queen.
"""

from __future__ import annotations

import asyncio
import json
import random
import secrets
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal, Protocol

from rbee import __version__, hivestatus
from rbee.config import JITTER
from rbee.errors import Disconnected, NotRunning, RbeeError, TimedOut, UnknownHive, Unreachable
from rbee.narration import (
    NOT_IN_CATALOG,
    QUEEN_AWAY,
    QUEEN_BACK,
    SENDING_HEARTBEAT,
    Event,
    Narrator,
    line_of,
    now_rfc3339,
)
from rbee.scope import SYSTEM, Scope
from rbee.wire.heartbeats import Heartbeat, HeartbeatAck, MachineEnd
from rbee.wire.types import LOCALHOST

if TYPE_CHECKING:
    from rbee.wire.lines import Line

FIRST_INTERVAL = 15.0
"""Seconds between beats until the queen's first ack sets the interval."""

LEAST_INTERVAL = 0.1
"""The least seconds between two beats, whatever interval the queen sets."""

LINES_SIZE = 128 * 1024
"""The most bytes of lines in a beat: the queen would refuse a larger one at each retry."""

LINES_MAX = 64
"""The most lines kept for the next beat, as many as a Heartbeat may carry; then the oldest is dropped."""

GOODBYE_TIMEOUT = 0.5
"""Seconds that the last beat to the queen of this machine may take: the queen's restart may wait for it."""

UNHEARD = (Disconnected, NotRunning, TimedOut, Unreachable)
"""The errors of a beat that has not reached the queen; others are the queen's refusals."""


class Beats(Protocol):
    """Sends beats: over a link to the local queen's socket, or the control connection to a remote queen."""

    @property
    def is_open(self) -> bool:
        """Whether a beat would use an existing connection."""

    async def beat(self, heartbeat: Heartbeat, *, timeout: float | None = None) -> HeartbeatAck:
        """Send a heartbeat and return its ack, within `timeout` seconds. Raises RbeeError."""


class Heart(Narrator):
    """Sends heartbeats. It is also a narrator, whose lines go with the next beat.

    `status` is called with each new status text for the unit. `fingerprint` and `work` are called for each
    beat and must not block. `instance` identifies this process to the queen.
    """

    def __init__(
        self,
        hive_id: str,
        queen: Beats,
        journal: Narrator,
        *,
        status: Callable[[str], None],
        queen_name: str,
        fingerprint: Callable[[], str | None] = lambda: None,
        work: Callable[[], str | None] = lambda: None,
        instance: str | None = None,
        scope: Scope = SYSTEM,
    ) -> None:
        self._hive_id = hive_id
        self._queen = queen
        self._journal = journal
        self._status = status
        self._queen_name = queen_name
        self._fingerprint = fingerprint
        self._work = work
        self._hurried = asyncio.Event()
        self._instance = instance or secrets.token_hex(16)
        self._scope = scope
        self._interval = FIRST_INTERVAL
        self._lines: deque[tuple[str | None, Line]] = deque(maxlen=LINES_MAX)
        self._trouble: object = None
        self._failure: RbeeError | None = None
        """The error of the last beat."""
        self._machine: MachineEnd | None = None
        """How the machine is going down, for the beat of goodbye()."""
        self._beating = asyncio.Lock()
        self._sending: asyncio.Future[HeartbeatAck] | None = None
        self._sent_at = 0.0
        """The loop's time at which the last beat was sent."""
        self._is_stopped = False
        self._is_announced = False

    @property
    def hive_id(self) -> str:
        """The hive's name in its queen's catalog."""
        return self._hive_id

    @property
    def queen_name(self) -> str:
        """The path of the queen's socket, or HOST:PORT."""
        return self._queen_name

    @property
    def instance(self) -> str:
        """The id of this process, random unless given."""
        return self._instance

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        """Write a line to the journal, and keep it for the next beat."""
        self._lines.append((fields.get("job_id"), line_of(event, text)))
        self._journal.narrate(event, text, hive=self._hive_id, **fields)

    async def run(self, *, is_patient: bool = True) -> None:
        """Beat at once and then every interval, until cancelled.

        Unless `is_patient`, raise the error of the first beat that fails.

        The first call begins with a beat in the state 'starting': its ack names the job that waits for this
        hive, so that the first narrated line already carries the job's id.
        """
        if not self._is_announced:
            ack = await self._beat("starting")
            self._is_announced = True
            about = {"job_id": ack.job_id} if ack and ack.job_id else {}
            self.narrate(SENDING_HEARTBEAT, "Sending first heartbeat to queen", **about)
        while True:
            self._hurried.clear()
            await self.beat()
            wait = self._interval * (1 - random.uniform(0, JITTER))
            if not is_patient and self._failure is not None:
                raise self._failure
            await self._pause(wait)

    def hurry(self) -> None:
        """Beat as soon as possible, because the hive's work has changed."""
        self._hurried.set()

    async def _pause(self, seconds: float) -> None:
        """Wait `seconds`, or until hurry() is called, but LEAST_INTERVAL at least."""
        began = asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(seconds):
                await self._hurried.wait()
        except TimeoutError:
            return
        await asyncio.sleep(max(0, began + LEAST_INTERVAL - asyncio.get_running_loop().time()))

    async def beat(self) -> None:
        """Beat now, and again while there are lines left: a beat carries the lines of one job."""
        while await self._beat("ready") and self._lines:
            pass

    async def goodbye(
        self, machine: Callable[[], MachineEnd | None] = lambda: None, *, timeout: float = GOODBYE_TIMEOUT
    ) -> None:
        """Send the last beat, with the result of `machine`, if there is an open connection.

        It may take `timeout` seconds, once the one before has ended, which has as long since its own start.
        A new connection to the socket of a queen that is stopping would start the queen again.
        """
        waited = asyncio.get_running_loop().time() - self._sent_at
        try:
            async with asyncio.timeout(max(0.0, timeout - waited)), self._beating:
                pass
        except TimeoutError:
            return
        if self._queen.is_open:
            self._machine = machine()
            try:
                await self._beat("stopping", timeout=timeout)
            finally:
                self.stop()  # run() goes on, and its next beat would take the goodbye back

    async def _beat(
        self, state: Literal["starting", "ready", "stopping"], timeout: float | None = None
    ) -> HeartbeatAck | None:
        async with self._beating:
            beat = self._compose(state)
            self._failure = None
            try:
                ack = await self._send(beat, timeout)
            except RbeeError as error:
                self._failure = error
                self.tell_trouble(error)
                return None
            if ack is None:
                return None
            while self._lines and self._lines[0][1] in beat.lines:
                self._lines.popleft()
            self._heard(ack)
            return ack

    async def _send(self, beat: Heartbeat, timeout: float | None) -> HeartbeatAck | None:
        """Send a beat and return its ack, None if stop() was called."""
        if self._is_stopped:
            return None
        self._sent_at = asyncio.get_running_loop().time()
        self._sending = asyncio.ensure_future(self._queen.beat(beat, timeout=timeout))
        try:
            await asyncio.wait((self._sending,))
        finally:
            self._sending.cancel()
        return None if self._sending.cancelled() else self._sending.result()

    def stop(self) -> None:
        """Cancel the beat that is being sent, and send no more.

        A queen that crashed is restarted only after its hive has stopped, and cannot answer a beat before.
        """
        self._is_stopped = True
        if self._sending is not None:
            self._sending.cancel()

    def _compose(self, state: Literal["starting", "ready", "stopping"]) -> Heartbeat:
        # A beat has one job_id, and so the lines of one job; those of the next job go with the next beat.
        job_id = self._lines[0][0] if self._lines else None
        lines: list[Line] = []
        size = 0
        for line_job_id, line in self._lines:
            size += len(json.dumps(line.text))
            if line_job_id != job_id or (lines and size > LINES_SIZE):
                break
            lines.append(line)
        return Heartbeat(
            hive_id=self._hive_id,
            timestamp=now_rfc3339(),
            workers=(),
            instance=self._instance,
            state=state,
            version=__version__,
            job_id=job_id,
            lines=tuple(lines),
            fingerprint=self._fingerprint(),
            work=self._work(),
            machine=self._machine,
        )

    def _heard(self, ack: HeartbeatAck) -> None:
        if self._trouble is not None:
            self._journal.narrate(QUEEN_BACK, "the queen answers again", hive=self._hive_id)
            self._trouble = None
        self._interval = max(LEAST_INTERVAL, ack.interval_ms / 1000)
        self._status(hivestatus.beats(self._queen_name, self._interval))

    def tell_trouble(self, error: RbeeError) -> None:
        """Set the status to the error, and narrate it, but each kind of error only once in a row."""
        self._status(hivestatus.has_trouble(self._queen_name, error.message))
        event, text = QUEEN_AWAY, f"the queen does not take heartbeats: {error.message}; retrying"
        if isinstance(error, UnknownHive):
            cure = f"add it with: {self._scope.rbeectl(f'add-hive {self._hive_id}')}"
            if self._hive_id != LOCALHOST:
                cure = error.hint or cure
            event, text = NOT_IN_CATALOG, f"{error.message}; {cure}"
        # An unreachable queen causes various errors, which are one kind; each class of refusal is another.
        trouble = event if isinstance(error, UNHEARD) else type(error)
        if self._trouble is not trouble:
            self._trouble = trouble
            self._journal.narrate(event, text, hive=self._hive_id)
