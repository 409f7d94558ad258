"""The hive's heart: a beat at once, then one every interval, over one kept connection.

The hive's own lines of a story go up with the beats, and so reach the keeper through the queen.
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
"""Seconds between beats until the queen's first answer says otherwise."""

LEAST_INTERVAL = 0.1
"""Seconds between two beats, at least, whatever the queen asks for."""

LINES_SIZE = 128 * 1024
"""Bytes of lines in a beat at most: the queen would refuse a larger one each time it is sent again."""

LINES_MAX = 64
"""Lines kept for the next beat, at most; then the oldest is dropped. As many as a Heartbeat may carry."""

GOODBYE_TIMEOUT = 0.5
"""Seconds that the last beat may take, and as many that it waits for the one before.

It is never worth a new connection.
"""


UNHEARD = (Disconnected, NotRunning, TimedOut, Unreachable)
"""The errors by which a beat does not reach the queen; others are the queen's refusals."""


class Beats(Protocol):
    """Where beats go: over a link to the local queen's socket, or the control connection of a remote one."""

    @property
    def is_open(self) -> bool:
        """Whether a beat would go over a connection that there is already."""

    async def beat(self, heartbeat: Heartbeat, *, timeout: float | None = None) -> HeartbeatAck:
        """Send one and return its ack, within `timeout` seconds; raises RbeeError."""


class Heart(Narrator):
    """Sends heartbeats. As a narrator it keeps lines for the next one.

    `status` is called with the unit's new status text. `fingerprint` and `work` are called for each beat and
    must be quick. `instance` identifies this process to the queen.
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
        """Of the last beat."""
        self._machine: MachineEnd | None = None
        """What the machine does, for the last beat."""
        self._beating = asyncio.Lock()
        self._sending: asyncio.Future[HeartbeatAck] | None = None
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
        """New with each start of this process."""
        return self._instance

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        """Keep a line for the next beat, and write it to the journal."""
        self._lines.append((fields.get("job_id"), line_of(event, text)))
        self._journal.narrate(event, text, hive=self._hive_id, **fields)

    async def run(self, *, is_patient: bool = True) -> None:
        """Beat at once and then every interval, until cancelled.

        If not `is_patient`, raise the error of the first beat that fails.

        Before the first heartbeat the hive announces itself: the ack names the job that waits
        for it, so that the very first line can carry the job's id.
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
        """Beat as soon as possible, as the work of the hive has changed."""
        self._hurried.set()

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or until there is a hurry, and LEAST_INTERVAL at least."""
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

    async def goodbye(self, machine: Callable[[], MachineEnd | None] = lambda: None) -> None:
        """Send the last beat, with what `machine` returns, if there is an open connection.

        A new connection to the socket of a queen that is stopping would start it again.
        """
        try:
            async with asyncio.timeout(GOODBYE_TIMEOUT), self._beating:
                pass
        except TimeoutError:
            return
        if self._queen.is_open:
            self._machine = machine()
            await self._beat("stopping", timeout=GOODBYE_TIMEOUT)

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
        """Send a beat and return its ack, None if stop() has ended it."""
        if self._is_stopped:
            return None
        self._sending = asyncio.ensure_future(self._queen.beat(beat, timeout=timeout))
        try:
            await asyncio.wait((self._sending,))
        finally:
            self._sending.cancel()
        return None if self._sending.cancelled() else self._sending.result()

    def stop(self) -> None:
        """End the beat that is being sent, for whatever, and send no more: the hive stops.

        A queen who died is started again when her hive has stopped, and takes no beat before.
        """
        self._is_stopped = True
        if self._sending is not None:
            self._sending.cancel()

    def _compose(self, state: Literal["starting", "ready", "stopping"]) -> Heartbeat:
        # A beat carries the lines of one job; those of the next go with the next.
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
        """Write to the status what is wrong, and to the journal once for each kind of error."""
        self._status(hivestatus.has_trouble(self._queen_name, error.message))
        event, text = QUEEN_AWAY, f"the queen does not take heartbeats: {error.message}; retrying"
        if isinstance(error, UnknownHive):
            cure = f"add it with: {self._scope.rbeectl(f'add-hive {self._hive_id}')}"
            if self._hive_id != LOCALHOST:
                cure = error.hint or cure
            event, text = NOT_IN_CATALOG, f"{error.message}; {cure}"
        # An unreachable queen has many error texts, and is narrated once; each kind of refusal is, too.
        trouble = event if isinstance(error, UNHEARD) else type(error)
        if self._trouble is not trouble:
            self._trouble = trouble
            self._journal.narrate(event, text, hive=self._hive_id)
